"""What the demo shows: each step as it runs, with its time, and a table at the end."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class StepFailed(Exception):
    """A step did not show what it promises; says what came instead."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that has ended; `problem` is empty when it went well."""

    title: str
    seconds: float
    problem: str = ""


class Screen:
    """A terminal shows a spinner while a step runs; a pipe gets plain lines."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._console = Console(highlight=False, soft_wrap=True)

    @property
    def failed(self) -> bool:
        """Whether any step failed."""
        return any(step.problem for step in self.steps)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show and time one step."""
        started = time.monotonic()
        try:
            with self._console.status(escape(title)):
                yield
        except BaseException as error:
            self._end(Step(title, time.monotonic() - started, _problem(error)))
            raise
        self._end(Step(title, time.monotonic() - started))

    def say(self, text: str) -> None:
        """Show something that the step found."""
        for line in text.splitlines():
            self._console.print(f"            [dim]{escape(line)}[/dim]")

    def print(self, text: str) -> None:
        """Show a line as it is."""
        self._console.print(escape(text))

    def summary(self) -> None:
        """Show all steps with their times."""
        table = Table(title="Summary", title_justify="left")
        table.add_column("step")
        table.add_column("seconds", justify="right")
        table.add_column("result")
        for step in self.steps:
            first, *_ = step.problem.splitlines() or [""]  # the rest was shown when the step ended
            result = f"[red]{escape(first)}[/red]" if first else "[green]ok[/green]"
            table.add_row(escape(step.title), f"{step.seconds:.2f}", result)
        self._console.print()
        self._console.print(table)

    def _end(self, step: Step) -> None:
        self.steps.append(step)
        mark = "[green]✓[/green]" if not step.problem else "[red]✗[/red]"
        self._console.print(f"  {mark} {step.seconds:6.2f} s  {escape(step.title)}")
        if step.problem:
            self.say(step.problem)


def _problem(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "interrupted"
    return str(error) or type(error).__name__
