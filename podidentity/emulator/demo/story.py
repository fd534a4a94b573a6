"""The demo as a story: one step after the other, each shown with its time. Everything it starts ends with it."""

import asyncio
import base64
import json
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from podidentity.api.errors import PodIdentityError
from podidentity.emulator.demo import programs
from podidentity.emulator.demo.azure import CLIENT_ID, SCALE_SET, DemoAzure
from podidentity.emulator.demo.cluster import NAMESPACE, DemoCluster
from podidentity.emulator.demo.keep import hints, keep_running
from podidentity.emulator.demo.kubeconfigs import Given, stand_in
from podidentity.emulator.demo.kubelet import Kubelet
from podidentity.emulator.demo.programs import Program
from podidentity.emulator.demo.screen import Screen, StepFailed
from podidentity.emulator.kubernetes.app import kubernetes_app
from podidentity.emulator.kubernetes.state import ClusterState
from podidentity.emulator.lab.network import GATEWAY, Attach, Lab
from podidentity.emulator.lab.relay import Outside
from podidentity.emulator.serving import serve
from podidentity.emulator.tls import CertificateAuthority, trust_bundle, trust_environment
from podidentity.kube.transport import HttpTransport, connect

NODE = "node-0"
_NODE_ADDRESS = IPv4Address("10.240.0.4")
_PODS = {
    "bound": (IPv4Address("10.244.0.10"), Attach.ADDRESSLESS),
    "second": (IPv4Address("10.244.0.11"), Attach.BRIDGE),
    "stranger": (IPv4Address("10.244.0.12"), Attach.ADDRESSLESS),
}
_ATTACHED = {Attach.ADDRESSLESS: "no address on the host side, as Calico and Azure CNI do", Attach.BRIDGE: "a bridge"}
_API_PORT, _CONTROLLER_PROBE, _NODE_PROBE = 6443, 8080, 8085
_STAND_IN_TOKEN = "token-of-the-demo"
_TOKEN_URL = (
    "http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
)
_HOST_URL = "http://127.0.0.1:2579/host/token/?resource=https://management.azure.com/"
_START_SECONDS = 30.0
"""For a program to become ready: it takes one or two; a busy machine many."""
_ANSWER_SECONDS = 30.0
_ASSIGN_SLACK = 30.0
_GONE_SECONDS = 60.0
"""For what an earlier demo left: a controller manager takes some seconds to finish a namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for."""

    folder: Path
    """For files of this run; removed by the caller."""
    given: Given | None
    """A real API server in place of the stand-in."""
    host_listener: socket.socket | None
    """On the host's loopback, for the stand-in: `kubectl` outside reaches it there."""
    operation_seconds: float
    keep: bool


class Story:
    """One run."""

    def __init__(self, options: Options, screen: Screen, outside: Outside) -> None:
        self._options = options
        self._screen = screen
        self._outside = outside
        self._ca = CertificateAuthority("podidentity demo CA")
        self._azure = DemoAzure(options.folder, self._ca, operation_seconds=options.operation_seconds)
        self._kubeconfig = options.folder / "kubeconfig-lab"

    async def run(self) -> None:
        """Play all steps. Raises StepFailed, after which everything is taken back all the same."""
        async with AsyncExitStack() as stack:
            await self._build(stack)
            transport = await self._connect(stack)
            cluster = await self._prepare(stack, transport)
            controller, node = await self._start_programs(stack)
            kubelet = Kubelet(transport, NODE, {name: str(address) for name, (address, _) in _PODS.items()})
            try:
                await self._use(cluster, kubelet)
            except (StepFailed, OSError, TimeoutError):
                self._show_logs(controller, node)
                raise
            if self._options.keep:
                self._screen.print(self._hints(controller, node))
                await keep_running(self._screen, kubelet, controller, node)
            else:
                await self._release(cluster)
            with self._screen.step("SIGTERM ends both programs; the rules stay, so pods are refused"):
                await _stop(controller, node)

    async def _build(self, stack: AsyncExitStack) -> None:
        with self._screen.step(f"Node {NODE} and {len(_PODS)} pods as network namespaces"):
            lab = stack.enter_context(Lab())
            lab.add_node(NODE, _NODE_ADDRESS)
            for name, (address, attach) in _PODS.items():
                lab.add_pod(NODE, name, address, attach=attach)
        self._screen.say("\n".join(f"{name:9} {address}  {_ATTACHED[how]}" for name, (address, how) in _PODS.items()))
        with self._screen.step("Azure stands in: ARM and Entra with TLS, IMDS on 169.254.169.254:80"):
            await self._azure.start(stack)
        what = "the given API server" if self._options.given else "a stand-in"
        with self._screen.step(f"Kubernetes API: {what}"):
            await self._serve_api(stack)

    async def _serve_api(self, stack: AsyncExitStack) -> None:
        """Make the API server reachable in the lab, and write the kubeconfig of the programs."""
        listener = socket.create_server((str(GATEWAY), _API_PORT))
        if self._options.given is not None:
            given = self._options.given
            self._outside.present(listener, given.host, given.port)
            stack.callback(listener.close)
            self._kubeconfig.write_text(given.at(str(GATEWAY), _API_PORT))
            return
        certificate = self._ca.issue(self._options.folder, "apiserver", str(GATEWAY), "127.0.0.1", "localhost")
        sockets = [listener] + ([self._options.host_listener] if self._options.host_listener else [])
        state = ClusterState(tokens={_STAND_IN_TOKEN: "system:admin"})
        await stack.enter_async_context(serve(kubernetes_app(state), sockets=sockets, tls=certificate))
        server = f"https://{GATEWAY}:{_API_PORT}"
        self._kubeconfig.write_text(stand_in(server, self._ca.pem, _STAND_IN_TOKEN))
        if self._options.host_listener is not None:
            port = self._options.host_listener.getsockname()[1]
            outside = stand_in(f"https://127.0.0.1:{port}", self._ca.pem, _STAND_IN_TOKEN)
            (self._options.folder / "kubeconfig").write_text(outside)

    async def _connect(self, stack: AsyncExitStack) -> HttpTransport:
        given = self._options.given
        if given is None:
            return await self._open(stack)
        with self._screen.step(f"The API server {given.server} answers"):
            try:
                transport = await self._open(stack)
                await DemoCluster(transport).check_answers()
            except PodIdentityError as error:
                said = str(error).replace(f"{GATEWAY}:{_API_PORT}", f"{given.host}:{given.port}")
                raise StepFailed(said.replace(str(self._kubeconfig), str(given.path))) from error
        with self._screen.step("It has no identities but those of a demo that was killed"):
            cluster = DemoCluster(transport)
            await cluster.refuse_if_used()
            left = await cluster.clear_leftovers(seconds=_GONE_SECONDS)
        if left:
            self._screen.say(f"removed what an earlier demo left: {', '.join(left)}")
        return transport

    async def _open(self, stack: AsyncExitStack) -> HttpTransport:
        transport = await connect(str(self._kubeconfig))
        stack.push_async_callback(transport.close)
        return transport

    async def _prepare(self, stack: AsyncExitStack, transport: HttpTransport) -> DemoCluster:
        cluster = DemoCluster(transport)
        stack.push_async_callback(cluster.take_back)
        with self._screen.step("The CRDs of manifests/crds are accepted, the node is registered"):
            await cluster.install_crds()
            await cluster.add_node(NODE, f"azure://{SCALE_SET}/virtualMachines/0")
            await cluster.prepare_namespace()
        return cluster

    async def _start_programs(self, stack: AsyncExitStack) -> tuple[Program, Program]:
        folder = self._options.folder
        azure, cloud = self._azure.write_config()
        trust = trust_environment(trust_bundle(self._ca.pem, folder / "trusted.pem"))
        with self._screen.step("`podidentity controller` and `podidentity node` start and become ready"):
            controller = await stack.enter_async_context(
                programs.mode(
                    None,
                    "controller",
                    f"--kubeconfig={self._kubeconfig}",
                    f"--cloudconfig={azure}",
                    "--unassign=immediate",
                    f"--http-probe-port={_CONTROLLER_PROBE}",
                    folder=folder,
                    environment=trust | {"AZURE_ENVIRONMENT_FILEPATH": str(cloud), "MIC_POD_NAMESPACE": NAMESPACE},
                )
            )
            node = await stack.enter_async_context(
                programs.mode(
                    NODE,
                    "node",
                    f"--kubeconfig={self._kubeconfig}",
                    f"--node={NODE}",
                    f"--http-probe-port={_NODE_PROBE}",
                    folder=folder,
                    environment={},
                )
            )
            async with asyncio.TaskGroup() as waiting:
                for program, host, port in (
                    (controller, "127.0.0.1", _CONTROLLER_PROBE),
                    (node, _NODE_ADDRESS, _NODE_PROBE),
                ):
                    url = f"http://{host}:{port}/readyz"
                    waiting.create_task(programs.until_ready(program, url, seconds=_START_SECONDS))
        return controller, node

    async def _use(self, cluster: DemoCluster, kubelet: Kubelet) -> None:
        """Apply the objects and let every kind of client ask."""
        with self._screen.step("The README's AzureIdentity, AzureIdentityBinding and pods are applied"):
            await cluster.apply(NODE)
            await kubelet.look()
        asking = asyncio.create_task(self._ask("bound"), name="curl in the pod")
        try:
            token = await self._see_assigned(cluster, asking)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)  # before the agent that it asks is taken away
        await self._use_more(token)

    async def _see_assigned(self, cluster: DemoCluster, asking: asyncio.Task[str]) -> str:
        with self._screen.step("AzureAssignedIdentity is Created; the scale set is being changed"):
            await cluster.wait_for_state("bound", "Created", seconds=_ASSIGN_SLACK)
        with self._screen.step("AzureAssignedIdentity is Assigned"):
            seconds = self._options.operation_seconds + _ASSIGN_SLACK
            await cluster.wait_for_state("bound", "Assigned", seconds=seconds)
        with self._screen.step("curl in the bound pod, waiting since the pod was there, has its token"):
            token = await asking
        took = time.monotonic() - cluster.created_at["bound"]
        self._screen.say(f"$ curl '{_TOKEN_URL}' -H Metadata:true -s\n{_claims(token)}")
        azure = self._options.operation_seconds
        self._screen.say(f"pod created → token: {took:.2f} s, of which Azure's operation took {azure:.2f} s")
        return token

    async def _use_more(self, token: str) -> None:
        with self._screen.step("A second pod with the same binding: no change in Azure, its token at once"):
            _expect(await self._ask("second") == token, "the second pod has another token")
        with self._screen.step("azure-identity in the bound pod gets the same token"):
            command = programs.python("podidentity.emulator.demo.sdk")
            printed = await programs.output_of("bound", *command, seconds=_ANSWER_SECONDS)
            _expect(printed == token, f"ManagedIdentityCredential got something else: {printed[-300:]}")
        with self._screen.step("A program of the host gets it at /host/token/ in the name of the pod"):
            command = programs.curl(_HOST_URL, f"podns: {NAMESPACE}", "podname: bound")
            answer = _json(await programs.output_of(NODE, *command, seconds=_ANSWER_SECONDS))
            _expect(answer.get("token", {}).get("access_token") == token, f"the answer is {answer}")
            _expect(answer["clientid"] == CLIENT_ID, f"the client ID is {answer['clientid']}")
        with self._screen.step("A pod without binding is refused, with the reason"):
            command = programs.curl(_TOKEN_URL, "Metadata: true")
            refusal = _json(await programs.output_of("stranger", *command, seconds=_ANSWER_SECONDS))
            _expect("access_token" not in refusal, "the stranger got a token")
            _expect("error_description" in refusal, f"the answer is {refusal}")
        self._screen.say(json.dumps(refusal, indent=2))

    async def _release(self, cluster: DemoCluster) -> None:
        with self._screen.step("The pods are deleted: their AzureAssignedIdentities go"):
            await cluster.delete_pods("bound", "second")
            for pod in ("bound", "second"):
                await cluster.wait_for_state(pod, None, seconds=_ASSIGN_SLACK)
        with self._screen.step("The identity leaves the scale set; the one of somebody else stays"):
            seconds = self._options.operation_seconds + _ASSIGN_SLACK
            await self._azure.wait_for_assigned("monitoring", seconds=seconds)

    def _hints(self, *running: Program) -> str:
        given, enter = self._options.given, self._outside.enter_command
        return hints(
            kubeconfig=given.path if given else self._options.folder / "kubeconfig",
            logs=[program.log for program in running],
            pods=list(_PODS),
            clients=[
                f"{enter('bound')} curl '{_TOKEN_URL}' -H Metadata:true -s",
                f"{enter(NODE)} curl '{_HOST_URL}' -H 'podns: {NAMESPACE}' -H 'podname: bound' -s",
            ],
        )

    async def _ask(self, pod: str) -> str:
        """Run the classic curl in a pod and return its token."""
        command = programs.curl(_TOKEN_URL, "Metadata:true")
        seconds = self._options.operation_seconds + _ANSWER_SECONDS
        answer = _json(await programs.output_of(pod, *command, seconds=seconds))
        _expect("access_token" in answer, f"{pod} was refused: {answer}")
        return str(answer["access_token"])

    def _show_logs(self, *running: Program) -> None:
        for program in running:
            self._screen.say(f"--- {program.name}\n{program.last_words()}")


async def _stop(*running: Program) -> None:
    codes = await asyncio.gather(*(program.stop() for program in running))
    for program, code in zip(running, codes, strict=True):
        _expect(code == 0, f"{program.name} ended with {code}:\n{program.last_words()}")


def _expect(fact: bool, otherwise: str) -> None:  # noqa: FBT001 - an assertion
    if not fact:
        raise StepFailed(otherwise)


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise StepFailed(f"no JSON but: {text[:300]}") from None
    return dict(found)


def _claims(token: str) -> str:
    """Decode what a token says of itself; its signature is of no interest here."""
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    shown = {name: claims[name] for name in ("aud", "appid", "oid", "tid", "xms_mirid", "exp") if name in claims}
    return f"access_token: {token[:12]}… (JWT), which says:\n" + json.dumps(shown, indent=2)
