"""The shipped programs as processes, and clients inside pods."""

import asyncio
import os
import shutil
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from podidentity.emulator.demo.screen import StepFailed
from podidentity.emulator.lab.enter import spawn

_STOP_SECONDS = 8.0
"""A mode ends within its drain of some seconds."""
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
"""The lab has no way out, so no proxy either."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running mode."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-8:]) or "(no output)"

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code; kill it when it does not end."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            raise StepFailed(f"{self.name} did not end within {_STOP_SECONDS:.0f} s of SIGTERM") from None


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without what would lead a program out of the lab."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in _PROXIES and not name.startswith(("AZURE_", "KUBE"))
    }
    return {**kept, **extra}


@asynccontextmanager
async def mode(
    network: str | None, name: str, *flags: str, folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[Program]:
    """Run `podidentity NAME FLAGS` inside a network namespace for the length of the block."""
    log = folder / f"{name}.log"
    command = (sys.executable, "-m", "podidentity", name, *flags)
    with log.open("wb") as sink:
        process = await spawn(network, *command, env=clean_environment(environment), stdout=sink, stderr=sink)
    try:
        yield Program(name, process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_ready(program: Program, url: str, *, seconds: float) -> None:
    """Wait for `/readyz` of a program."""
    problem = "no answer"
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while program.process.returncode is None:
                problem = await asyncio.to_thread(_readiness, url)
                if not problem:
                    return
                await asyncio.sleep(0.02)
    raise StepFailed(f"{program.name} is not ready: {problem}\n{program.last_words()}")


def _readiness(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1):
            return ""
    except OSError as error:
        return str(error)


async def output_of(network: str, *command: str, seconds: float) -> str:
    """Run a client inside a pod or node and return what it printed."""
    async with AsyncExitStack() as stack:
        process = await spawn(
            network,
            *command,
            env=clean_environment({}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        stack.push_async_callback(_kill, process)
        try:
            async with asyncio.timeout(seconds):
                printed, _ = await process.communicate()
        except TimeoutError:
            raise StepFailed(f"{command[0]} had no answer after {seconds:.0f} s") from None
    return printed.decode(errors="replace").strip()


def curl(url: str, *headers: str) -> list[str]:
    """Return the command of a request: curl where the machine has it, else the same in Python."""
    found = shutil.which("curl")
    program = [found] if found else python("podidentity.emulator.demo.fetch")
    return [*program, url, *(word for header in headers for word in ("-H", header)), "-s"]


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def python(module: str) -> list[str]:
    """Return the command of a module of ours."""
    return [sys.executable, "-m", module]
