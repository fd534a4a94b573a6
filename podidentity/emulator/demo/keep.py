"""`--keep`: what to do with a demo that goes on running, and seeing to it that it does."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from podidentity.emulator.demo.cluster import NAMESPACE, manifests
from podidentity.emulator.demo.kubelet import Kubelet
from podidentity.emulator.demo.programs import Program
from podidentity.emulator.demo.screen import Screen


def hints(*, kubeconfig: Path, logs: Sequence[Path], pods: Sequence[str], clients: Sequence[str]) -> str:
    """Return what is shown to the user; `clients` are commands that ask for tokens."""
    return "\n".join(
        [
            "",
            "Everything goes on running until Ctrl-C. In another terminal:",
            f"  export KUBECONFIG={kubeconfig}",
            "  kubectl get azureassignedidentities -A",
            f"  kubectl -n {NAMESPACE} delete azureidentitybinding reader-binding",
            f"  kubectl -n {NAMESPACE} delete pod {pods[0]}",
            f"  kubectl apply -f {manifests() / 'demo.yaml'}",
            *(f"  {client}" for client in clients),
            f"  tail -f {' '.join(map(str, logs))}",
            f"The demo goes on playing scheduler and kubelet for pods named {', '.join(pods)}: what was deleted of",
            "them can be created again, from the same file. Pods of other names get no network here.",
        ]
    )


async def keep_running(screen: Screen, kubelet: Kubelet, *running: Program) -> None:
    """Play scheduler and kubelet until Ctrl-C, and say so when a program ends meanwhile."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kubelet.run(), name="kubelet")
            for program in running:
                tasks.create_task(_report_end(screen, program), name=f"end of {program.name}")
    except asyncio.CancelledError:
        # Ctrl-C is how this ends: take everything back in order.
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()


async def _report_end(screen: Screen, program: Program) -> None:
    code = await program.process.wait()
    screen.print(f"podidentity {program.name} has ended with {code}; the rest goes on without it. Its last words:")
    screen.say(program.last_words())
