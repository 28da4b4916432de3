"""What the benchmark shows: a bar while it measures, the tables at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from bench.cost import CostSection
from bench.faktory import EMBEDDED
from bench.machine import Machine
from bench.measure import Measured
from bench.profile import Profiler
from bench.results import OURS, REPLY_TIMES, Results, cpu_per_million, median, speed
from bench.rows import ROWS, Kind, Row
from bench.targets import MIB, Verdict

HEADINGS: Final = (
    *("jobs/s", "delivered", "p50 ms", "p99 ms", "max ms", "CPU s/10⁶", "of all", "RSS MiB"),
    *("sidecar", "Faktory", "load", "others"),  # cores that they used
)
WIDTH: Final = 190  # characters that a table may have where the output is no terminal


class Display:
    """Shows a run.

    Args:
        console: where to; control codes only if it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """One line as it is."""
        self._console.print(Text(text), soft_wrap=True)

    def introduce(self, faktory: str, links: str, machine: Machine, trips: Mapping[float, float]) -> None:
        """What is going to be measured, and on what."""
        self.say(f"{faktory}; links by {links}; {machine.date}")
        self.say(
            f"{machine.cores} x {machine.processor}, {machine.memory / 2**30:.0f} GiB, {machine.system}, "
            f"{machine.python}; {machine.file_system}, fsync {machine.fsync * 1000:.2f} ms; load {machine.load:.1f}"
        )
        real = ", ".join(f"{asked * 1000:g} ms is {found * 1000:.1f} ms" for asked, found in trips.items())
        self.say(f"round trips: {real}")

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[str], None]]:
        """A bar of so many measurements; yields what is told the name of each, `ROUND: ROW`, as it begins.

        Where the output is no terminal, a line a round.
        """
        if not self._console.is_terminal:
            yield _Lines(self).step
            return
        columns = BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=total)
            begun = 0

            def step(text: str) -> None:
                nonlocal begun
                bar.update(task, completed=begun, description=text)
                begun += 1

            yield step

    def tables(self, results: Results) -> None:
        """All that was found."""
        for rtt in results.trips:
            self._rows(results, rtt)
        if results.cost is not None:
            self._cost(results, results.cost)
        self._verdicts(results)
        if EMBEDDED in results.faktory:
            self.say("The targets are about a real Faktory; the embedded one takes a PUSHB several times as fast.")
        for row, reason in results.skipped.items():
            self.say(f"left out: {row}: {reason}")
        for problem in results.problems:
            self.say(f"PROBLEM: {problem}")
        self.say(f"{len(results.rounds)} rounds, median; {results.seconds / 60:.1f} min")

    def profiles(self, profiler: Profiler, rows: Sequence[str]) -> None:
        """Where the sidecar's time went, row by row."""
        if profiler.missing:
            self.say(profiler.missing)
        for row in rows:
            for number, line in enumerate(profiler.summary(row)):
                self.say(line if number else f"\nprofile of {row}\n{line}")

    def _rows(self, results: Results, rtt: float) -> None:
        rows = [row for row in ROWS if results.of(row.name, rtt)]
        if not rows:
            return
        table = _table(f"{rtt * 1000:g} ms round trip ({results.trips[rtt] * 1000:.1f} ms), {results.faktory}")
        table.add_column("row", no_wrap=True)
        table.add_column("what", no_wrap=True)
        for heading in HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*_cells(row, results, rtt))
        self._print(table)

    def _cost(self, results: Results, section: CostSection) -> None:
        trip = results.trips[results.main] * 1000
        table = _table(f"cost of a job in disk mode, round trip {trip:.1f} ms; each measured once")
        for heading in ("what grows", "to"):
            table.add_column(heading, no_wrap=True)
        for heading in ("jobs/s", "CPU s/10⁶", "wire B up", "down", "disk B", "RSS MiB"):
            table.add_column(heading, justify="right", no_wrap=True)
        for producers in (1, 4, 16, 64):
            if measured := results.of(f"disk-{producers}", results.main):
                disk = median(measured, lambda one: one.written / one.jobs if one.jobs else None)
                rss = median(measured, lambda one: one.rss)
                found = (speed(measured), cpu_per_million(measured), None, None, disk, rss and rss / MIB)
                table.add_row("producers", str(producers), *map(_number, found))
        for cost in section.costs:
            figures = (cost.rate, cost.cpu, cost.up, cost.down, cost.disk, cost.rss / MIB)
            table.add_row(cost.part, cost.at, *map(_number, figures))
        self._print(table)
        if (drained := section.drained) is not None:
            self.say(
                f"A backlog of {drained.jobs:,}: started within {drained.started_after:.2f} s, drained at "
                f"{drained.rate:,.0f} jobs/s, {drained.rate / drained.link:.2f} of the link's limit "
                f"({drained.link:,.0f}), {drained.cpu:.1f} CPU s/10⁶, RSS at most {drained.rss / MIB:.0f} MiB"
            )

    def _verdicts(self, results: Results) -> None:
        if not results.verdicts:
            return
        table = _table("targets")
        table.add_column("what")
        for heading in ("at", "measured", "rounds", "at least", "", "reach for"):
            table.add_column(heading, justify="right", no_wrap=True)
        for verdict in results.verdicts:
            table.add_row(*verdict_cells(verdict))
        self._print(table)

    def _print(self, table: Table) -> None:
        width = max(self._console.width, WIDTH)  # a narrow window folds lines better than rich cuts cells
        segments = self._console.render(table, self._console.options.update(width=width))
        self._console.print()
        self._console.print(Segments(segments), soft_wrap=True, end="")


class _Lines:
    """Progress for a log."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._last = ""

    def step(self, text: str) -> None:
        """Says the part before the colon when it is a new one."""
        now = text.partition(":")[0]
        if now != self._last:
            self._last = now
            self._display.say(f"{now} ...")


def verdict_cells(verdict: Verdict) -> tuple[str, ...]:
    """A target as a row of a table."""

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{sign}{figure(value)}{unit}"

    unit = verdict.unit if verdict.unit == "x" else f" {verdict.unit}"
    sign = ""
    measured, spread = shown(verdict.measured), f"{figure(verdict.lowest)}–{figure(verdict.highest)}"
    sign = "≤ " if verdict.lower_is_better else ""
    bounds = shown(verdict.at_least), shown(verdict.reach_for)
    mark = "reached" if verdict.reached else "met" if verdict.met else "MISSED" if verdict.judged else "–"
    return (verdict.what, f"{verdict.at * 1000:g} ms", measured, spread, bounds[0], mark, bounds[1])


def figure(value: float) -> str:
    """A number with three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cells(row: Row, results: Results, rtt: float) -> list[str]:
    measured = results.of(row.name, rtt)
    delivered = median(measured, lambda one: one.delivered_rate)
    rate = median(measured, lambda one: one.rate)
    cost = cpu_per_million(measured) if row.way.is_sidecar else None
    rss = median(measured, lambda one: one.rss) if row.way.is_sidecar else None
    busy = [_busy(measured, part) for part in ("sidecar", "faktory", "load", "others")]
    if row.kind is Kind.IDLE:
        return [row.name, row.label, *[""] * 7, _number(rss, 1 / MIB), f"{busy[0] or 0:.4f}", "", "", ""]
    return [
        row.name,
        row.label,
        _number(rate),
        _number(delivered),
        *(_number(median(measured, value), 1000) for value in REPLY_TIMES),
        _number(cost),
        _number(cpu_per_million(measured, OURS)),
        _number(rss, 1 / MIB),
        *map(_number, busy),
    ]


def _busy(measured: Sequence[Measured], part: str) -> float | None:
    """Of a core."""
    return median(measured, lambda one: one.cpu.get(part, 0.0) / (one.spent or one.seconds))


def _number(value: float | None, factor: float = 1.0) -> str:
    return "–" if value is None else figure(value * factor)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
