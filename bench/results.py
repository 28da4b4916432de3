"""All that a run has found, and its JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.cost import CostSection
from bench.machine import Machine
from bench.measure import Measured
from bench.rows import BY_NAME, Kind
from bench.targets import Verdict

REPLY_TIMES: Final[tuple[Callable[[Measured], float | None], ...]] = (
    lambda one: one.p50,
    lambda one: one.p99,
    lambda one: one.longest,
)


class Results(msgspec.Struct, frozen=True):
    """A run.

    Args:
        faktory, links: what was measured against, in words.
        trips: the real round trip of each that was asked for, both in seconds.
        main: the round trip at which all rows were measured.
        rounds: the measurements.
        cost: None where it was not measured.
        skipped: rows that were left out, and why.
        problems: what went wrong, a line each.
        seconds: that the run took.
    """

    machine: Machine
    faktory: str
    links: str
    trips: dict[float, float]
    main: float
    rounds: list[list[Measured]]
    verdicts: list[Verdict]
    cost: CostSection | None
    skipped: dict[str, str]
    problems: list[str]
    seconds: float

    def of(self, row: str, rtt: float) -> list[Measured]:
        """The measurements of a row, one a round."""
        return [one for measured in self.rounds for one in measured if one.row == row and one.rtt == rtt]


def median(measured: Sequence[Measured], value: Callable[[Measured], float | None]) -> float | None:
    """The median of a figure, None where nothing tells it."""
    values = [found for one in measured if (found := value(one)) is not None and found == found]
    return statistics.median(values) if values else None


def speed(measured: Sequence[Measured]) -> float | None:
    """The figure that counts for a row: acknowledged, or delivered, jobs a second."""
    if BY_NAME[measured[0].row].kind is Kind.BULK:
        return median(measured, lambda one: one.delivered_rate)
    return median(measured, lambda one: one.rate)


OURS: Final = ("sidecar", "faktory", "link", "load")


def cpu_per_million(measured: Sequence[Measured], parts: Sequence[str] = ("sidecar",)) -> float | None:
    """CPU seconds of some parts for a million jobs."""
    return median(measured, lambda one: _cpu(one, parts) / one.jobs * 1e6 if one.jobs else None)


def _cpu(one: Measured, parts: Sequence[str]) -> float:
    return sum(one.cpu.get(part, 0.0) for part in parts)


def others_at(results: Results, rtt: float) -> float:
    """Cores that other programs used while the rows at a round trip were measured, the median."""
    every = [one for measured in results.rounds for one in measured if one.rtt == rtt]
    return median(every, lambda one: one.cpu.get("others", 0.0) / one.spent if one.spent else None) or 0.0


def write_json(results: Results, path: Path) -> None:
    """Writes all of it, with a few medians for those who only want these."""
    rows: list[dict[str, Any]] = []
    seen = dict.fromkeys((one.row, one.rtt) for measured in results.rounds for one in measured)
    for name, rtt in seen:
        measured = results.of(name, rtt)
        rows.append(
            {
                "row": name,
                "rtt": rtt,
                "jobs_per_second": speed(measured),
                "reply_p50": median(measured, lambda one: one.p50),
                "reply_p99": median(measured, lambda one: one.p99),
                "reply_max": median(measured, lambda one: one.longest),
                "sidecar_cpu_seconds_per_million": cpu_per_million(measured),
                "cpu_seconds_per_million": cpu_per_million(measured, OURS),
            }
        )
    targets = [{**msgspec.to_builtins(one), "met": one.met, "reached": one.reached} for one in results.verdicts]
    document = {**msgspec.to_builtins(results, str_keys=True), "medians": rows, "verdicts": targets}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
