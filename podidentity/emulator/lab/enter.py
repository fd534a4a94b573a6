"""Start programs inside a node or a pod: `python -m podidentity.emulator.lab.enter NAME -- COMMAND ARGUMENT...`.

A small program of its own, because only the process that becomes the command may move into the namespace.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import IO, Final

from podidentity.emulator.lab import netns

_USAGE: Final = "usage: python -m podidentity.emulator.lab.enter NAME -- COMMAND ARGUMENT..."
_NOT_FOUND = 127  # as shells say it


async def spawn(
    name: str | None,
    *command: str,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = asyncio.subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> asyncio.subprocess.Process:
    """Start a command inside a named network namespace (None: the present one); it inherits the rest.

    The process is the command's own from the first instruction that matters: signals and exit code are its.
    """
    if name is not None:
        command = (sys.executable, "-m", __name__, name, "--", *command)
    return await asyncio.create_subprocess_exec(*command, env=env, stdin=stdin, stdout=stdout, stderr=stderr)


def main(arguments: list[str]) -> int:
    """Become the command, inside the namespace; returns only with an exit code that tells of a failure."""
    match arguments:
        case [name, "--", program, *rest]:
            try:
                netns.enter(name)
                os.execvp(program, [program, *rest])
            except OSError as error:
                print(f"cannot run {program} in {name}: {error}", file=sys.stderr)  # noqa: T201 - a program
                return _NOT_FOUND
        case _:
            print(_USAGE, file=sys.stderr)  # noqa: T201 - a program
    return os.EX_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
