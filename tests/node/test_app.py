"""`podidentity node` as a process on a node of the lab, with pods, an API server and an IMDS around it."""

import asyncio
import errno
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from podidentity.emulator.azure.imds import Imds
from podidentity.emulator.azure.state import AzureState
from podidentity.emulator.demo.programs import Program, clean_environment, mode, until_ready
from podidentity.emulator.kubernetes import kubernetes_app
from podidentity.emulator.lab import netns
from podidentity.emulator.lab.enter import spawn
from podidentity.emulator.lab.network import GATEWAY, METADATA_ADDRESS, Lab
from podidentity.emulator.serving import serve
from podidentity.node import app, nfnetlink
from podidentity.node import redirect as redirects
from podidentity.node.nfnetlink import Refused
from podidentity.node.nftables import NetfilterUnsupportedError
from podidentity.node.redirect import Redirect
from podidentity.node.settings import NodeSettings
from tests.node.objects import NODE, Object, assigned, binding, identity, pod
from tests.node.town import Api, signing_key
from tests.node.wire import Answer, Wire, request

ADDRESS, POD = IPv4Address("10.240.0.4"), IPv4Address("10.244.0.5")
RULES = Redirect(METADATA_ADDRESS, 80, ADDRESS, 2579)
API_PORT = 6443
READY_URL = f"http://{ADDRESS}:8085/readyz"
PATIENCE = 20.0
_VM = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/virtualMachines/vm-0"


@dataclass
class World:
    api: Api
    imds: Imds
    folder: Path
    services: AsyncExitStack

    async def start_api(self) -> None:
        listener = netns.socket_in(None, socket.AF_INET, str(GATEWAY), API_PORT)
        await self.services.enter_async_context(serve(kubernetes_app(self.api.state), sockets=[listener]))

    @property
    def flags(self) -> list[str]:
        cluster = {"name": "c", "cluster": {"server": f"http://{GATEWAY}:{API_PORT}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(config | {"apiVersion": "v1", "kind": "Config", "current-context": "c"}))
        return ["--node", NODE, "--kubeconfig", str(path), "--http-probe-port", "8085", "--log-format", "json"]

    @asynccontextmanager
    async def agent(self, *flags: str) -> AsyncIterator[Program]:
        async with mode("node", "node", *self.flags, *flags, folder=self.folder, environment={}) as program:
            yield program


@asynccontextmanager
async def world(*objects: Object, api: bool = True) -> AsyncIterator[World]:
    azure = AzureState(signing_key=signing_key())
    one = identity()["spec"]
    azure.add_identity(one["resourceID"], client_id=one["clientID"])
    azure.add_virtual_machine(_VM, users=[one["resourceID"]])
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        lab.add_node("node", ADDRESS)
        lab.add_pod("node", "web", POD)
        async with AsyncExitStack() as services:
            imds = Imds(azure, lambda _: _VM)
            listener = netns.socket_in(None, socket.AF_INET, str(METADATA_ADDRESS), 80)
            await services.enter_async_context(serve(imds, sockets=[listener]))
            made = World(Api(), imds, Path(folder), services)
            made.api.put(*objects)
            if api:
                await made.start_api()
            yield made


@asynccontextmanager
async def from_the_pod() -> AsyncIterator[Wire]:
    connection = netns.connection_in("web", str(METADATA_ADDRESS), 80)
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


async def ask() -> Answer:
    async with from_the_pod() as wire:
        wire.send(request())
        return await wire.answer()


async def probe(path: str) -> Answer:
    """Look at the agent as kubelet does."""
    reader, writer = await asyncio.open_connection(str(ADDRESS), 8085)
    try:
        writer.write(request(path.encode()))
        return await Wire(reader, writer).answer()
    finally:
        writer.close()


async def stop(program: Program) -> float:
    """End it as kubelet does; return the seconds that took."""
    started = time.monotonic()
    assert await program.stop() == 0, program.last_words()
    return time.monotonic() - started


async def said(program: Program, words: str) -> str:
    """Wait for a line of its log."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = [line for line in program.log.read_text().splitlines() if words in line]
            if found:
                return found[0]
            assert program.process.returncode is None, program.last_words()
            await asyncio.sleep(0.02)


async def ended(place: World, *prefix: str) -> tuple[int | None, str]:
    """Run the agent to its end; return its exit code and all that it said."""
    command = [*prefix, sys.executable, "-m", "podidentity", "node", *place.flags]
    process = await spawn("node", *command, env=clean_environment({}), stdout=-1, stderr=-2)
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


def rules_hold() -> bool:
    return netns.run_in("node", lambda: redirects.installed(RULES))


@pytest.mark.netns
def test_from_the_start_to_a_token_to_an_end_that_leaves_pods_refused(isolated):
    async def scenario():
        async with world(pod(), binding(), identity(), assigned()) as place:
            async with place.agent() as agent:
                await until_ready(agent, READY_URL, seconds=PATIENCE)
                answer = await ask()
                assert (answer.status, answer.json["client_id"]) == (200, "client-one")
                assert {it.client for it in place.imds.log} == {str(ADDRESS)}
                netns.run_in("node", redirects.remove)
                await said(agent, "rules_reasserted")
                assert (await ask()).status == 200
                assert await stop(agent) < 3
            assert rules_hold()
            asked = len(place.imds.log)
            with pytest.raises(ConnectionRefusedError):
                await ask()
            assert len(place.imds.log) == asked
            log = agent.log.read_text()
            assert "node_stopped" in log
            assert answer.json["access_token"] not in log
            assert "Traceback" not in log

    isolated(scenario)


@pytest.mark.netns
def test_a_held_request_is_answered_when_the_agent_is_stopped(isolated):
    async def scenario():
        async with world(pod(), binding(), identity(), assigned(state="Created")) as place, place.agent() as agent:
            await until_ready(agent, READY_URL, seconds=PATIENCE)
            async with from_the_pod() as wire:
                wire.send(request(metadata=False) + request())
                assert (await wire.answer()).status == 400  # the agent has them both
                seconds = asyncio.create_task(stop(agent))
                answer = await wire.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "2")
                assert "being stopped" in answer.json["error_description"]
                assert await wire.ended() == b""
                assert await seconds < 3
            assert rules_hold()

    isolated(scenario)


@pytest.mark.netns
def test_without_an_api_server_the_agent_waits_visibly_and_pods_are_refused(isolated):
    async def scenario():
        async with world(pod(), binding(), identity(), assigned(), api=False) as place, place.agent() as agent:
            line = json.loads(await said(agent, "watch_failed"))
            assert "does not answer" in line["error"]
            assert line["retry_in"] > 0
            answer = await ask()
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            readiness = await probe("/readyz")
            assert readiness.status == 503
            assert readiness.body.startswith(b"waiting for the first list of pods, azureassignedidentities, ")
            assert (await probe("/livez")).status == 200
            await place.start_api()
            await until_ready(agent, READY_URL, seconds=PATIENCE)
            assert (await ask()).status == 200
            assert await stop(agent) < 3

    isolated(scenario)


@pytest.mark.netns
def test_a_taken_port_ends_the_agent_with_the_flag_to_change(isolated):
    async def scenario():
        async with world() as place:
            with netns.socket_in("node", socket.AF_INET, "0.0.0.0", 2579):
                code, words = await ended(place)
            assert code == 1
            assert "10.240.0.4:2579 is taken" in words
            assert "--nmi-port" in words
            assert "Traceback" not in words
            assert not rules_hold()  # somebody else's listener must not get what pods send

    isolated(scenario)


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv to take a capability away")
def test_without_net_admin_the_agent_ends_and_says_so(isolated):
    async def scenario():
        async with world() as place:
            code, words = await ended(place, "setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin")
            assert (code, "NET_ADMIN" in words) == (1, True), words
            assert "Traceback" not in words

    isolated(scenario)


async def test_on_a_kernel_without_nftables_the_agent_does_not_start(monkeypatch):
    def refuse(_messages):
        raise Refused(errno.EOPNOTSUPP)

    monkeypatch.setattr(nfnetlink, "transact", refuse)
    settings = NodeSettings(node=NODE, listen_address=ADDRESS)
    with pytest.raises(NetfilterUnsupportedError, match="CONFIG_NF_TABLES"):
        await app.run(settings, asyncio.Event())
