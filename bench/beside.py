"""This checkout beside another commit: both in each round, in turn, on the same Faktory.

A shared machine is noisy, and its noise comes in waves. So the two are never compared by their averages: each round
measures a row with both, one right after the other, the first of a round being the second of the next; what counts is
the ratio of such a pair, and the median of all pairs. Its interval is that of the sign test, which asks nothing of how
the noise is distributed.

CPU time for a job, until the last one is in Faktory, is steadier than speed.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.children import BenchError
from bench.machine import state_directory
from bench.measure import Measured, Meter
from bench.rows import Row
from bench.show import Display
from bench.site import MODES, Site, Target
from bench.targets import speed
from bench.wire import WireError

BESIDE_ROWS: Final = (
    *("disk-1", "disk-16", "memory-16", "upstream-16"),
    *("disk-raw-1", "disk-http-32", "disk-pushb", "disk-http-batch"),
)
"""What is compared where nothing else is asked for."""
HERE: Final = Path(__file__).parents[1]
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and where it lies; `sure`: with what confidence, below `CONFIDENCE` where there are few values."""

    median: float
    low: float
    high: float
    sure: float


def interval(values: Sequence[float]) -> Interval:
    """The median of paired ratios and its interval, by the sign test.

    Args:
        values: one at least.
    """
    ranked, count = sorted(values), len(values)
    outside, cut = 2 * 0.5**count, 0  # the chance that the median lies outside of all values
    while cut + 1 < (count + 1) // 2:
        wider = outside + 2 * math.comb(count, cut + 1) * 0.5**count
        if wider > 1 - CONFIDENCE:
            break
        outside, cut = wider, cut + 1
    return Interval(statistics.median(ranked), ranked[cut], ranked[-1 - cut], max(0.0, 1 - outside))


def cpu_for_a_job(measured: Measured) -> float:
    """Seconds of the sidecar's CPU."""
    return measured.cpu["sidecar"] / measured.jobs


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of a row; ratios of new to old."""

    row: Row
    speed: Interval
    cpu: Interval


@contextmanager
def checkout(revision: str, parent: Path) -> Iterator[Path]:
    """The files of another commit.

    Raises:
        BenchError: there is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="beside-", dir=parent) as directory:
        tree = Path(directory) / "tree"
        command = ["git", "-C", str(HERE), "worktree", "add", "--detach", "--force", str(tree), revision]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{revision} can't be checked out: {done.stderr.strip().splitlines()[-1]}")
        try:
            yield tree
        finally:
            command = ["git", "-C", str(HERE), "worktree", "remove", "--force", str(tree)]
            subprocess.run(command, capture_output=True, check=False)


def run_beside(
    revision: str,
    rows: Sequence[Row],
    rtt: float,
    rounds: int,
    seconds: float,
    directory: Path | None,
    console: Console,
) -> int:
    """Compares, and returns the exit code: 0, 1 when it could not go on.

    Args:
        rtt: round trip in seconds.
        seconds: that a row takes, about.
        directory: on the disk to measure; None for where journals are by default.
    """
    display = Display(console)
    unfit = [row.name for row in rows if row.way not in MODES]
    if unfit:
        display.say(f"These rows have no sidecar that could be compared: {', '.join(unfit)}")
        return 2
    base = directory or state_directory()
    base.mkdir(parents=True, exist_ok=True)
    try:
        with checkout(revision, base) as tree, tempfile.TemporaryDirectory(prefix="bench-", dir=base) as room:
            site = Site(Path(room))
            try:
                compared = list(_compare(site, Meter(site, seconds=seconds), tree, rows, rtt, rounds, display))
            finally:
                site.close()
    except (BenchError, WireError) as error:
        display.say(f"The comparison stopped: {error}")
        return 1
    console.print(_table(compared, revision, rtt, rounds))
    return 0


def _compare(
    site: Site, meter: Meter, tree: Path, rows: Sequence[Row], rtt: float, rounds: int, display: Display
) -> Iterator[Comparison]:
    pairs: dict[str, list[tuple[Measured, Measured]]] = {row.name: [] for row in rows}
    with display.progress(len(rows) * rounds) as step:
        for number in range(rounds):
            for row in rows:
                step(f"round {number + 1} of {rounds}: {row.name}")
                order = [tree, None] if number % 2 == 0 else [None, tree]
                measured = {which: _measured(site, meter, row, rtt, which) for which in order}
                pairs[row.name].append((measured[tree], measured[None]))
    for row in rows:
        speeds = [speed(new) / speed(old) for old, new in pairs[row.name]]
        costs = [cpu_for_a_job(new) / cpu_for_a_job(old) for old, new in pairs[row.name]]
        yield Comparison(row, interval(speeds), interval(costs))


def _measured(site: Site, meter: Meter, row: Row, rtt: float, tree: Path | None) -> Measured:
    """One row with a sidecar of its own: what an earlier row left in it would count for this one.

    Raises:
        BenchError: it could not be measured, or jobs are lost or too many.
    """
    running = site.start_sidecar(row.way.value, site.far(rtt), MODES[row.way], tree=tree)
    try:
        target = Target(running.url, running.http_url, running.pid, site.observer(local=False))
        measured = meter.measure(row, rtt, target)
    finally:
        running.close()
    if measured.wrong:
        raise BenchError(f"{row.name}: {measured.wrong}")
    return measured


def _table(compared: Sequence[Comparison], revision: str, rtt: float, rounds: int) -> Table:
    sure = min(one.speed.sure for one in compared)
    table = Table(
        title=f"This checkout beside {revision}, {rtt * 1000:g} ms, {rounds} pairs: medians, {sure:.1%} intervals",
        title_justify="left",
    )
    for heading in ("row", "speed, new / old", "CPU a job, new / old"):
        table.add_column(heading, justify="left" if heading == "row" else "right")
    for one in compared:
        table.add_row(one.row.name, _text(one.speed), _text(one.cpu))
    return table


def _text(found: Interval) -> str:
    return f"{found.median:.3f}  [{found.low:.3f} {found.high:.3f}]"
