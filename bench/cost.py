"""What a job costs the sidecar, and how that grows with its size, with batches and with the backlog.

Each figure is measured once, through a counting forwarder between the sidecar and the WAN where bytes are told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from bench.children import Child, python
from bench.faktory import free_port
from bench.measure import Measured, Meter
from bench.rows import BY_NAME, Kind, Row, Way
from bench.running import RunningSidecar
from bench.site import Site, Target, moved
from bench.usage import usage
from sidecar.config.parsing import upstream as parse_url

SIZES: Final[Mapping[str, int]] = {"100 B": 0, "1 KB": 900, "64 KB": 65_400, "1 MB": 1_048_000}
"""Names, and the bytes of text that make a job about that long."""
BATCHES: Final = (1, 10, 100, 1000)
BACKLOGS: Final = (1_000, 10_000, 100_000, 1_000_000)
FILL: Final = 50_000  # jobs of one order while the backlog is built
SECONDS: Final = 1.0  # of a row
JOURNAL_BOUND: Final = "3GiB"
DRAIN_PATIENCE: Final = 240.0  # seconds

_SINGLES: Final = Row("cost", "", Kind.PRODUCERS, Way.DISK, client="raw", producers=4)


class Cost(msgspec.Struct, frozen=True):
    """What one measurement found.

    Args:
        part: what is varied; `at` is how.
        rate: acknowledged jobs a second.
        cpu: CPU seconds of the sidecar for a million jobs.
        up, down: bytes between the sidecar and Faktory for each job, of TCP's payload; None where not counted.
        disk: bytes that were sent to storage for each job.
        rss: bytes of memory at the end.
    """

    part: str
    at: str
    jobs: int
    rate: float
    cpu: float
    up: float | None
    down: float | None
    disk: float
    rss: int


class Drained(msgspec.Struct, frozen=True):
    """What became of the largest backlog when the link came.

    Args:
        started_after: seconds from the start of the process to its listening, with this backlog in the journal and the
            journal's files dropped from the page cache.
        rate: delivered jobs a second.
        link: the link's limit in jobs a second, measured just before and after.
        cpu: CPU seconds of the sidecar for a million jobs.
        rss: most bytes of memory that were seen.
    """

    jobs: int
    started_after: float
    rate: float
    link: float
    cpu: float
    rss: int


class CostSection(msgspec.Struct, frozen=True):
    """All of it."""

    costs: list[Cost]
    drained: Drained | None


class CostMeter:
    """Measures the cost on a site.

    Args:
        rtt: round trip of the link in seconds.
        step: told what comes next.
    """

    STEPS: Final = len(SIZES) + len(BATCHES) + len(BACKLOGS) + 1

    def __init__(self, site: Site, rtt: float, step: Callable[[str], None]) -> None:
        self._site = site
        self._rtt = rtt
        self._step = step

    def measure(self) -> CostSection:
        """Measures all of it.

        Raises:
            BenchError: it could not be measured.
        """
        costs = []
        for name, size in SIZES.items():
            self._step(f"cost: jobs of {name}")
            costs.append(self._counted("job size", name, {}, _SINGLES, size=size))
        for batch in BATCHES:
            self._step(f"cost: batches of {batch}")
            bulk = replace(BY_NAME["disk-pushb"], name="cost")
            costs.append(self._counted("batch size", f"{batch:,}", {"BATCH_MAX_SIZE": str(batch)}, bulk))
        backlogs, drained = self._backlogs()
        return CostSection(costs + backlogs, drained)

    def _counted(self, part: str, at: str, settings: Mapping[str, str], row: Row, *, size: int = 0) -> Cost:
        """A row through a sidecar of its own behind a counting forwarder."""
        site = self._site
        far = parse_url(site.far(self._rtt))
        command = python("bench.servers", "count", far.host, str(far.port))
        counter = Child("the counting forwarder", command, site.directory / "count.stderr")
        try:
            upstream = moved(site.far_url, int(counter.read_line()))
            running = site.start_sidecar("cost", upstream, settings)
            try:
                before = _counts(counter)
                measured = Meter(site, seconds=SECONDS, size=size).measure(row, self._rtt, self._target(running))
                after = _counts(counter)
            finally:
                running.close()
        finally:
            counter.stop()
        up, down = (now - then for now, then in zip(after, before, strict=True))
        return _cost(part, at, measured, up / measured.jobs, down / measured.jobs)

    def _target(self, running: RunningSidecar) -> Target:
        return Target(running.url, running.http_url, running.pid, self._site.observer(local=False))

    # The backlog ---------------------------------------------------------------------------------------------------

    def _backlogs(self) -> tuple[list[Cost], Drained]:
        """The cost of a job beside a growing backlog, and its drain."""
        site = self._site
        port = free_port()
        upstream = moved(site.far_url, port)
        directory = site.directory / "backlog"
        settings = {"SIDECAR_JOURNAL_MAX_BYTES": JOURNAL_BOUND, "SIDECAR_JOURNAL_DIR": str(directory)}
        running = site.start_sidecar("backlog", upstream, settings, link=False)
        costs, stored = [], 0
        try:
            for backlog in BACKLOGS:
                self._step(f"cost: a backlog of {backlog:,}")
                stored += self._fill(running, backlog - stored)
                measured = self._beside(running)
                stored += measured.jobs
                costs.append(_cost("backlog", f"{backlog:,}", measured, None, None))
        finally:
            running.close()
        self._step("cost: the drain")
        before = self._link_limit()
        _drop_from_page_cache(directory)
        running = site.start_sidecar("backlog", upstream, settings, link=False)
        try:
            drained = self._drain(running, port, stored)
        finally:
            running.close()
            site.observer(local=False).empty()
        return costs, msgspec.structs.replace(drained, link=(before + self._link_limit()) / 2)

    def _link_limit(self) -> float:
        """Jobs a second of a raw client that pipelines without bound."""
        return Meter(self._site, seconds=SECONDS).measure(BY_NAME["link"], self._rtt).delivered_rate

    def _fill(self, running: RunningSidecar, jobs: int) -> int:
        """Adds so many jobs, by the thousand; returns how many it were."""
        filled = 0
        row = replace(BY_NAME["disk-pushb"], name="cost")
        while filled < jobs:
            some = max(1000, min(FILL, jobs - filled) // 1000 * 1000)
            filled += self._beside(running, row, some).jobs
        return filled

    def _beside(self, running: RunningSidecar, row: Row = _SINGLES, jobs: int = 0) -> Measured:
        """A row whose jobs stay in the journal."""
        meter = Meter(self._site, seconds=60.0 if jobs else SECONDS)
        target = Target(running.url, running.http_url, running.pid)
        return meter.measure(replace(row, jobs=jobs), self._rtt, target)

    def _drain(self, running: RunningSidecar, port: int, jobs: int) -> Drained:
        far = parse_url(self._site.far_url)
        observer = self._site.observer(local=False)
        before = usage([running.pid]).cpu
        self._site.links.open(far.host, far.port, self._rtt, listen=port)
        first, rss, count = 0.0, 0, 0
        deadline = time.monotonic() + DRAIN_PATIENCE
        while count < jobs and time.monotonic() < deadline:
            time.sleep(0.05)
            count = observer.count()
            first = first or (time.monotonic() if count else 0.0)
            rss = max(rss, usage([running.pid]).rss)
        seconds = time.monotonic() - first
        cpu = usage([running.pid]).cpu - before
        return Drained(count, running.listening_after, count / seconds, 0.0, cpu / count * 1e6 if count else 0.0, rss)


def _cost(part: str, at: str, measured: Measured, up: float | None, down: float | None) -> Cost:
    cpu = measured.cpu["sidecar"] / measured.jobs * 1e6
    disk = measured.written / measured.jobs
    return Cost(part, at, measured.jobs, measured.rate, cpu, up, down, disk, measured.rss)


def _counts(counter: Child) -> tuple[int, int]:
    """Bytes towards Faktory and back, so far."""
    counter.write(b"\n")
    up, down = counter.read_line().split()
    return int(up), int(down)


def _drop_from_page_cache(directory: Path) -> None:
    """Lets the next reader find the files on the disk only, where the system can be asked for that."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in directory.iterdir():
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
