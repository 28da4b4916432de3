"""One row, measured once."""

from __future__ import annotations

import math
import time
from typing import Final

import msgspec

from bench.children import BenchError, Program
from bench.orders import UNBOUNDED, Order, Report
from bench.profile import Profiler
from bench.rows import Kind, Row
from bench.site import Site, Target
from bench.usage import Usage, exact_cpu, machine_cpu, usage

BULK_JOBS: Final = 40_000  # of a bulk row for each second that a row is to take: about what a Faktory takes
LOOK_EVERY: Final = 0.01  # seconds between two looks at the queue while the last jobs arrive
LOOK_SELDOM: Final = 0.1  # and before that
DELIVERY_PATIENCE: Final = 30.0  # seconds without an arrival after which jobs count as lost
IDLE_SECONDS: Final = 3.0
IDLE_AFTER: Final = 0.5  # seconds: the start is over by then
SETTLED_AFTER: Final = 0.2  # seconds, and a round trip: confirmations are on the disk by then


class Measured(msgspec.Struct, frozen=True):
    """What one measurement found.

    Args:
        rtt: round trip of the link in seconds, as it was asked for.
        jobs: acknowledged.
        seconds: until the last of them was.
        delivered_seconds: until the last of them was counted in Faktory; None where there is none.
        p50, p99, longest: seconds from a command to its reply; None where commands aren't answered one by one.
        cpu: CPU seconds by part (`sidecar`, `faktory`, `link`, `load`); `others` is what else ran on the machine.
        spent: seconds that the measurement took: what the CPU seconds are of.
        written: bytes that the sidecar sent to storage.
        rss: bytes of memory of the sidecar, at the end.
        wrong: what is wrong with the jobs, "" when nothing is.
    """

    row: str
    rtt: float
    jobs: int
    seconds: float
    delivered_seconds: float | None = None
    p50: float | None = None
    p99: float | None = None
    longest: float | None = None
    cpu: dict[str, float] = {}
    spent: float = 0.0
    written: int = 0
    rss: int = 0
    wrong: str = ""

    @property
    def rate(self) -> float:
        """Acknowledged jobs a second."""
        return self.jobs / self.seconds if self.seconds > 0 else math.nan

    @property
    def delivered_rate(self) -> float:
        """Delivered jobs a second."""
        return self.jobs / self.delivered_seconds if self.delivered_seconds else math.nan


class Meter:
    """Measures rows on a site.

    Args:
        seconds: that a row takes, about.
        size: bytes of text in each job.
    """

    def __init__(self, site: Site, *, seconds: float, size: int = 0, profiler: Profiler | None = None) -> None:
        self._site = site
        self._seconds = seconds
        self._size = size
        self._profiler = profiler

    def measure(self, row: Row, rtt: float, target: Target | None = None) -> Measured:
        """Measures a row at a round trip, on an empty queue.

        Args:
            target: where its jobs go; None for what the site has for such rows.

        Raises:
            BenchError: it could not be measured.
        """
        if row.kind is Kind.IDLE:
            return self._idle(row, rtt)
        target = target or self._site.target(row.way, rtt)
        try:
            measured = self._load(row, rtt, target)
        except BenchError:
            self._site.start_over()
            raise
        finally:
            if target.observer is not None:
                target.observer.empty()
        return measured

    def orders(self, row: Row, target: Target) -> list[Order]:
        """What each program of a row is to do."""
        processes = 1 if row.client in ("go", "node") else min(row.producers, self._site.pool.MOST)
        jobs = row.jobs
        if row.batch > 1 and not jobs:
            jobs = max(row.batch, round(self._seconds * BULK_JOBS / row.batch / processes) * row.batch)
        order = Order(
            row.task,
            target.http_url if row.task == "http" else target.url,
            self._site.queue,
            row.client,
            seconds=60.0 if row.window == UNBOUNDED else self._seconds,
            jobs=jobs,
            interval=row.producers / row.offered if row.offered else 0.0,
            batch=row.batch,
            window=row.window,
            size=self._size,
            directory=str(self._site.directory),
            path=row.path,
        )
        shares = [row.producers // processes + (place < row.producers % processes) for place in range(processes)]
        return [
            msgspec.structs.replace(order, producers=share, phase=place / processes)
            for place, share in enumerate(shares)
        ]

    def _load(self, row: Row, rtt: float, target: Target) -> Measured:
        orders = self.orders(row, target)
        programs = self._site.programs(row.client, len(orders))
        for program, order in zip(programs, orders, strict=True):
            program.prepare(order)
        for program in programs:
            program.wait_ready()
        if self._profiler is not None and target.pid:
            self._profiler.start(row.name, target.pid, self._seconds)
        before = self._usage(target, programs)
        began = time.monotonic()
        for program in programs:
            program.go()
        if row.kind is Kind.BULK and row.window == UNBOUNDED:
            arrived = self._watch(target, began, sum(order.jobs for order in orders))
            reports = [program.report(60.0) for program in programs]
        else:
            reports = [program.report(order.seconds) for program, order in zip(programs, orders, strict=True)]
            arrived = self._watch(target, began, sum(report.jobs for report in reports))
        if row.way.is_sidecar:
            time.sleep(rtt + SETTLED_AFTER)
        after = self._usage(target, programs)
        spent = time.monotonic() - began
        if self._profiler is not None:
            self._profiler.finish()
        failed = next((report.error for report in reports if report.error), "")
        if failed:
            raise BenchError(f"{row.name}: {failed}")
        measured = _summed(row, rtt, reports, arrived, before, after)
        return msgspec.structs.replace(measured, spent=spent)

    def _idle(self, row: Row, rtt: float) -> Measured:
        """What a sidecar that was just started uses while nothing happens."""
        running = self._site.start_sidecar("idle", self._site.far(rtt), {})
        try:
            time.sleep(IDLE_AFTER)
            before = exact_cpu(running.pid)
            time.sleep(IDLE_SECONDS)
            cpu, rss = exact_cpu(running.pid) - before, usage([running.pid]).rss
        finally:
            running.close()
        cores = {"sidecar": round(cpu, 5)}
        return Measured(row.name, rtt, 0, IDLE_SECONDS, cpu=cores, rss=rss, spent=IDLE_SECONDS)

    def _watch(self, target: Target, began: float, expected: int) -> tuple[float | None, str]:
        """Seconds until so many jobs were counted in Faktory, and what is wrong with their number."""
        observer = target.observer
        if observer is None:
            return None, ""
        count, changed = -1, time.monotonic()
        while True:
            now_there = observer.count()
            now = time.monotonic()
            if now_there >= expected:
                surplus = now_there - expected
                return now - began, f"{surplus:,} more jobs in Faktory than acknowledged" if surplus else ""
            if now_there != count:
                count, changed = now_there, now
            elif now - changed > DELIVERY_PATIENCE:
                return now - began, f"{expected - count:,} acknowledged jobs did not arrive"
            time.sleep(LOOK_EVERY if now_there > expected * 0.8 else LOOK_SELDOM)

    def _usage(self, target: Target, programs: list[Program]) -> dict[str, Usage]:
        parts = {
            "sidecar": [target.pid] if target.pid else [],
            "faktory": self._site.faktory_pids(),
            "link": self._site.link_pids(),
            "load": [program.child.pid for program in programs],
        }
        used = {name: usage(pids) for name, pids in parts.items()}
        if target.pid:
            used["sidecar"] = msgspec.structs.replace(used["sidecar"], cpu=exact_cpu(target.pid))
        ours = sum(one.cpu for one in used.values()) + time.process_time()
        return used | {"others": Usage(machine_cpu() - ours, 0, 0)}


def _summed(
    row: Row,
    rtt: float,
    reports: list[Report],
    arrived: tuple[float | None, str],
    before: dict[str, Usage],
    after: dict[str, Usage],
) -> Measured:
    replies = sorted(reply for report in reports for reply in report.replies)
    return Measured(
        row.name,
        rtt,
        sum(report.jobs for report in reports),
        max(report.seconds for report in reports),
        arrived[0],
        _quantile(replies, 0.5),
        _quantile(replies, 0.99),
        _quantile(replies, 1.0),
        cpu={name: round(after[name].cpu - before[name].cpu, 6) for name in after},
        written=after["sidecar"].written - before["sidecar"].written,
        rss=after["sidecar"].rss,
        wrong=arrived[1],
    )


def _quantile(replies: list[int], part: float) -> float | None:
    """Of sorted microseconds, in seconds."""
    return replies[min(len(replies) - 1, int(len(replies) * part))] / 1e6 if replies else None
