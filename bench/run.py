"""The benchmark itself: rounds over rows over round trips, and what is made of them."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from bench.children import BenchError
from bench.cost import CostMeter, CostSection
from bench.machine import Machine, describe, state_directory
from bench.measure import Measured, Meter
from bench.plots import write_plots
from bench.profile import Profiler
from bench.results import Results, write_json
from bench.rows import Row
from bench.show import Display
from bench.site import Site
from bench.targets import NEAR, verdicts
from bench.wire import WireError

INTERRUPTED: Final = 130  # exit code, as shells have it


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    Args:
        rows: to measure, in this order.
        trips: round trips in seconds.
        rounds: how often.
        seconds: that a row takes, about.
        size: bytes of text in each job.
        upstream: URL of a Faktory of somebody's own; "" for ours.
        cost: measure the cost too.
        json, plots: where to write these; None: not at all.
        directory: on the disk to measure; None for where journals are by default.
        profile: where to write profiles of the sidecar; None: it is not profiled.
    """

    rows: Sequence[Row]
    trips: Sequence[float]
    rounds: int = 5
    seconds: float = 1.0
    size: int = 0
    upstream: str = ""
    cost: bool = True
    json: Path | None = None
    plots: Path | None = None
    directory: Path | None = None
    profile: Path | None = None

    @property
    def main(self) -> float:
        """The round trip at which all rows are measured."""
        return NEAR if NEAR in self.trips else max(self.trips)

    def rows_at(self, rtt: float) -> list[Row]:
        """The rows that are measured at a round trip."""
        return [row for row in self.rows if rtt == self.main or row.everywhere]


@dataclass(slots=True)
class _Run:
    plan: Plan
    display: Display
    rounds: list[dict[tuple[str, float], Measured]] = field(default_factory=list)
    trips: dict[float, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    faktory: str = ""
    links: str = ""
    machine: Machine | None = None
    profiler: Profiler | None = None
    cost: CostSection | None = None


def run_bench(plan: Plan, console: Console) -> int:
    """Runs the benchmark and returns the exit code: 0, 1 when it could not go on, 130 after Ctrl-C."""
    run = _Run(plan, Display(console))
    run.rounds = [{} for _ in range(plan.rounds)]
    if plan.profile is not None:
        run.profiler = Profiler(plan.profile)
    before = signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    code = 0
    base = plan.directory or state_directory()
    base.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=base) as directory:
            code = _measure_all(run, Path(directory))
    except KeyboardInterrupt:
        run.display.say("The benchmark was interrupted; what is below is what it had measured.")
        code = INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    _conclude(run, time.monotonic() - began)
    return code


def _measure_all(run: _Run, directory: Path) -> int:
    try:
        site = Site(directory, run.plan.upstream)
        try:
            _introduce(run, site)
            _measure_rows(run, site)
            if run.plan.cost:
                _measure_cost(run, site)
        finally:
            site.close()
    except (BenchError, WireError) as error:
        run.display.say(f"The benchmark stopped: {error}")
        return 1
    return 0


def _introduce(run: _Run, site: Site) -> None:
    plan = run.plan
    run.faktory = site.name
    run.links = site.links.name
    run.machine = describe(site.directory)
    for rtt in plan.trips:
        run.trips[rtt] = site.round_trip(rtt)
    run.display.introduce(run.faktory, run.links, run.machine, run.trips)
    for row in plan.rows:
        reason = site.missing(row.client)
        if reason and row.name not in run.skipped:
            run.skipped[row.name] = reason


def _measure_rows(run: _Run, site: Site) -> None:
    plan = run.plan
    meter = Meter(site, seconds=plan.seconds, size=plan.size, profiler=run.profiler)
    work = {rtt: [row for row in plan.rows_at(rtt) if row.name not in run.skipped] for rtt in plan.trips}
    total = sum(map(len, work.values())) * plan.rounds
    with run.display.progress(total) as step:
        for rtt, rows in work.items():
            for number, measured in enumerate(run.rounds, 1):
                for row in rows:
                    step(f"{rtt * 1000:g} ms, round {number} of {plan.rounds}: {row.name}")
                    _measure_one(run, meter, row, rtt, measured)
            site.end_sidecars()


def _measure_one(run: _Run, meter: Meter, row: Row, rtt: float, into: dict[tuple[str, float], Measured]) -> None:
    try:
        measured = meter.measure(row, rtt)
    except BenchError as error:
        run.problems.append(f"{row.name} at {rtt * 1000:g} ms: {error}")
        return
    if measured.wrong:
        run.problems.append(f"{row.name} at {rtt * 1000:g} ms: {measured.wrong}")
    into[row.name, rtt] = measured


def _measure_cost(run: _Run, site: Site) -> None:
    with run.display.progress(CostMeter.STEPS) as step:
        try:
            run.cost = CostMeter(site, run.plan.main, step).measure()
        except BenchError as error:
            run.problems.append(f"cost: {error}")


def _conclude(run: _Run, seconds: float) -> None:
    plan = run.plan
    if run.machine is None or not any(run.rounds):
        return
    results = Results(
        machine=run.machine,
        faktory=run.faktory,
        links=run.links,
        trips=run.trips,
        main=plan.main,
        rounds=[list(one.values()) for one in run.rounds],
        verdicts=verdicts(run.rounds, main=plan.main),
        cost=run.cost,
        skipped=run.skipped,
        problems=run.problems,
        seconds=seconds,
    )
    run.display.tables(results)
    if run.profiler is not None:
        run.display.profiles(run.profiler, [row.name for row in plan.rows])
    if plan.json is not None:
        write_json(results, plan.json)
        run.display.say(f"Written: {plan.json}")
    if plan.plots is not None:
        for file in write_plots(results, plan.plots):
            run.display.say(f"Written: {file}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
