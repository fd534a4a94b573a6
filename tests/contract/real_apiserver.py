"""A real etcd and kube-apiserver for tests: own folder, free ports, ready in a few seconds, always killed.

There is no controller manager: namespaces stay Terminating, no `default` ServiceAccount appears, nothing runs pods.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "contract-suite"
READY_SECONDS = 60.0
"""Ready takes 2-4 s alone; two busy cores can stretch that a lot."""
STOP_SECONDS = 10.0
HOW_TO_GET = "no etcd and kube-apiserver: build them with `make kube-tools`, or set KUBEBUILDER_ASSETS"


def kube_assets() -> Path | None:
    """Find the folder with etcd and kube-apiserver; None when this machine has none."""
    cache = Path.home() / ".cache/podidentity/kube"
    named = [os.environ[name] for name in ("PODIDENTITY_KUBE_ASSETS", "KUBEBUILDER_ASSETS") if name in os.environ]
    for folder in [*map(Path, named), *sorted(cache.glob("v*"), reverse=True)]:
        if all((folder / program).exists() for program in ("etcd", "kube-apiserver")):
            return folder
    return None


class RealApiServer:
    """`async with RealApiServer(directory, assets=kube_assets()) as server`; the token is of group system:masters."""

    def __init__(self, directory: Path, *, assets: Path) -> None:
        self.directory = directory
        self.token = TOKEN
        self.kubeconfig = directory / "kubeconfig"
        self.ca = directory / "certs/apiserver.crt"
        self._assets = assets
        self._client_port, self._peer_port, self._port = _free_ports(3)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """The https address."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def tls(self) -> ssl.SSLContext:
        """What a client needs to trust it."""
        return ssl.create_default_context(cafile=str(self.ca))

    async def start(self) -> None:
        """Start both programs and wait until the API is ready.

        Raises:
            RuntimeError: one of them ended, or it took longer than `READY_SECONDS`; says where the logs are.

        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_files()
        try:
            self._spawn(*self._etcd())
            self._spawn(*self._apiserver())
            async with asyncio.timeout(READY_SECONDS):
                await self._ready()
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"kube-apiserver not ready, see {self.directory}/*.log") from error
        except BaseException:
            self.stop()
            raise

    async def forget_history(self) -> None:
        """Compact etcd and restart the API server, whose watch cache would remember: older revisions are gone."""
        async with aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with session.get(f"{self.url}/api/v1/nodes", headers=headers, ssl=self.tls) as answer:
                revision = (await answer.json())["metadata"]["resourceVersion"]
            compaction = {"revision": revision, "physical": True}
            async with session.post(
                f"http://127.0.0.1:{self._client_port}/v3/kv/compaction", json=compaction
            ) as done:
                done.raise_for_status()
        apiserver = self._processes.pop()
        apiserver.kill()
        apiserver.wait(STOP_SECONDS)
        self._spawn(*self._apiserver())
        async with asyncio.timeout(READY_SECONDS):
            await self._ready()

    def stop(self) -> None:
        """Kill both; the state is worth nothing."""
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait(STOP_SECONDS)
        self._processes.clear()
        shutil.rmtree(self.directory / "etcd", ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _etcd(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._client_port}", f"http://127.0.0.1:{self._peer_port}"
        return [
            "etcd", f"--data-dir={self.directory}/etcd", "--unsafe-no-fsync", f"--initial-cluster=default={peer}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        ]  # fmt: skip

    def _apiserver(self) -> list[str]:
        key = self.directory / "sa.pem"
        return [
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self._client_port}",
            "--bind-address=127.0.0.1", "--endpoint-reconciler-type=none", f"--secure-port={self._port}",
            f"--cert-dir={self.directory}/certs", f"--token-auth-file={self.directory}/tokens.csv",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc", "--allow-privileged",
            # Pods would be refused: no controller makes the default ServiceAccount.
            "--disable-admission-plugins=ServiceAccount",
        ]  # fmt: skip

    def _spawn(self, program: str, *arguments: str) -> None:
        # The children must not outlive a killed test run.
        tie = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with (self.directory / f"{program}.log").open("wb") as log:
            command = [*tie, str(self._assets / program), *arguments]
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
            )

    async def _ready(self) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        while not self.ca.exists():
            await self._pause()
        async with aiohttp.ClientSession(self.url, headers=headers) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get("/readyz", ssl=self.tls) as answer:
                        if answer.status == 200:
                            return
                await self._pause()

    async def _pause(self) -> None:
        if any(process.poll() is not None for process in self._processes):
            raise RuntimeError(f"etcd or kube-apiserver ended, see {self.directory}/*.log")
        await asyncio.sleep(0.1)

    def _write_files(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.directory / "sa.pem").write_bytes(pem)
        (self.directory / "tokens.csv").write_text(f'{TOKEN},contract,contract,"system:masters"\n')
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
