"""What the demo shows: bars on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

TABLE_WIDTH = 76  # characters


@dataclass(frozen=True, slots=True)
class Measured:
    """How one producer fared.

    Args:
        jobs: how many it pushed.
        seconds: from its first push until all of its replies were there and, where that is known, all jobs in Faktory.
        reply_p50, reply_p99: seconds from a push to its reply.
        delivery_p50: seconds from a push until Faktory had the job; None when the clocks can't be compared.
    """

    jobs: int
    seconds: float
    reply_p50: float
    reply_p99: float
    delivery_p50: float | None

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds


class Stage(Protocol):
    """One line of the display: so many of so many jobs."""

    def progress(self, done: int) -> None:
        """Shows how far it is."""

    def done(self, text: str) -> None:
        """Shows how it ended."""


class Display:
    """Shows the stages, one after the other.

    Args:
        console: where to; control codes only if it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """One line as it is."""
        self._console.print(Text(text), soft_wrap=True)

    @contextmanager
    def stages(self, *names: str) -> Iterator[Callable[[str, int], Stage]]:
        """A group of stages; yields what starts one of them, by its name and its number of jobs."""
        width = max(map(len, names))
        if not self._console.is_terminal:
            yield lambda name, total: _PlainStage(name.ljust(width), self)
            return
        columns = TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}")
        with Progress(*columns, console=self._console, auto_refresh=False) as progress:
            yield lambda name, total: _Bar(name.ljust(width), total, progress)

    def table(self, direct: Measured, through: Measured) -> None:
        """The two producers side by side."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("one pyfaktory producer")
        for heading in ("jobs/s", "reply p50", "p99", "in Faktory after"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, measured in (("direct", direct), ("through the sidecar", through)):
            table.add_row(
                name,
                f"{measured.rate:,.0f}",
                milliseconds(measured.reply_p50),
                milliseconds(measured.reply_p99),
                "–" if measured.delivery_p50 is None else milliseconds(measured.delivery_p50),
            )
        table.add_row("factor", f"{through.rate / direct.rate:,.0f}x", "", "", "")
        self._console.print()
        width = max(self._console.width, TABLE_WIDTH)  # a narrow window folds lines better than rich cuts cells
        segments = self._console.render(table, self._console.options.update(width=width))
        self._console.print(Segments(segments), soft_wrap=True, end="")
        self._console.print()


class _PlainStage:
    """A stage that is silent until it has ended."""

    def __init__(self, name: str, display: Display) -> None:
        self._name = name
        self._display = display

    def progress(self, done: int) -> None:
        """Nothing: a line for each step would be a long log."""

    def done(self, text: str) -> None:
        self._display.say(f"{self._name}  {text}")


class _Bar:
    """A stage as a bar."""

    def __init__(self, name: str, total: int, progress: Progress) -> None:
        self._total = total
        self._bars = progress
        self._task = progress.add_task(name, total=total, text="")
        progress.refresh()

    def progress(self, done: int) -> None:
        text = f"{done:,} of {self._total:,} jobs"
        self._bars.update(self._task, completed=done, text=text, refresh=True)

    def done(self, text: str) -> None:
        self._bars.update(self._task, completed=self._total, text=text, refresh=True)


def milliseconds(seconds: float) -> str:
    """A duration in ms, with a decimal where it matters."""
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 9.95 else f"{value:.1f} ms"
