"""What the sidecar is to reach: ratios of rows of one round, the median of all rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from bench.measure import Measured
from bench.rows import BY_NAME, Kind

Round = Mapping[tuple[str, float], Measured]
"""The measurements of one round, by row and round trip."""

MIB: Final = 1 << 20


class Verdict(msgspec.Struct, frozen=True):
    """How far a target was reached.

    Args:
        measured: the median over the rounds.
        lowest, highest: of the rounds.
        at: the round trip in seconds.
        at_least, reach_for: what is wanted; the latter None where there is nothing beyond.
        lower_is_better: what is wanted is a bound from above.
        judged: it was measured at the round trip that the target is about.
    """

    what: str
    at: float
    measured: float
    lowest: float
    highest: float
    at_least: float
    reach_for: float | None
    unit: str
    lower_is_better: bool
    judged: bool = True

    @property
    def met(self) -> bool:
        """Whether it is at least what it must be."""
        return self.judged and self._reaches(self.at_least)

    @property
    def reached(self) -> bool:
        """Whether it is as good as it was hoped for."""
        return self.judged and self.reach_for is not None and self._reaches(self.reach_for)

    def _reaches(self, bound: float) -> bool:
        return self.measured <= bound if self.lower_is_better else self.measured >= bound


@dataclass(frozen=True, slots=True)
class Goal:
    """One target.

    Args:
        value: of one round at one round trip.
        needs: the rows that it is made of.
        at: the round trip in seconds; None for the main one; EVERY for each.
    """

    what: str
    needs: tuple[str, ...]
    value: Callable[[Sequence[Measured]], float]
    at_least: float
    reach_for: float | None = None
    unit: str = "x"
    at: float | None = None
    lower_is_better: bool = False


EVERY: Final = -1.0
NEAR: Final = 0.050  # seconds: the round trip that most targets are about


def speed(measured: Measured) -> float:
    """The figure that counts for a row."""
    return measured.delivered_rate if BY_NAME[measured.row].kind is Kind.BULK else measured.rate


def _ratio(rows: Sequence[Measured]) -> float:
    return speed(rows[0]) / speed(rows[1])


def _p50(rows: Sequence[Measured]) -> float:
    assert rows[0].p50 is not None
    assert rows[1].p50 is not None
    return rows[0].p50 / rows[1].p50


def _p99(rows: Sequence[Measured]) -> float:
    assert rows[0].p99 is not None
    assert rows[1].p50 is not None
    return rows[0].p99 / rows[1].p50


def _first_answer(rows: Sequence[Measured]) -> float:
    """A thousand single requests one after the other, compared with one request of a thousand jobs."""
    return rows[0].rate / rows[1].rate


GOALS: Final[tuple[Goal, ...]] = (
    Goal("one pyfaktory producer, disk / direct", ("disk-1", "direct-1"), _ratio, 90, 150),
    Goal("one pyfaktory producer, disk / bare loop with fdatasync", ("disk-1", "bare-1"), _ratio, 0.45, 0.8),
    Goal("16 pyfaktory processes, disk / local Faktory", ("disk-16", "local-16"), _ratio, 0.45, 1.0),
    Goal("16 pyfaktory processes, memory / local Faktory", ("memory-16", "local-16"), _ratio, 0.7, 1.0),
    Goal("64 producers, upstream / direct", ("upstream-64", "direct-64"), _ratio, 0.9, 1.0),
    Goal("PUSHB of 1,000, disk / the link's limit", ("disk-pushb", "link"), _ratio, 0.85, 0.95, at=EVERY),
    Goal("PUSHB of 1,000, disk / the guide's way", ("disk-pushb", "guide"), _ratio, 12, 15),
    Goal("HTTP batches of 1,000, disk / the link's limit", ("disk-http-batch", "link"), _ratio, 0.5, 0.8),
    Goal("reply p50 at 1,000 jobs/s / append + fdatasync", ("paced", "sync"), _p50, 3, 2, lower_is_better=True),
    Goal("reply p99 at 1,000 jobs/s / append + fdatasync", ("paced", "sync"), _p99, 16, 8, lower_is_better=True),
    Goal("one pyfaktory producer, memory / direct", ("memory-1", "direct-1"), _ratio, 1.0, 1.5, at=0.0),
    Goal(
        "idle CPU of a core",
        ("idle",),
        lambda rows: 100 * rows[0].cpu["sidecar"] / rows[0].seconds,
        0.5,
        unit="%",
        lower_is_better=True,
    ),
    Goal("idle RSS", ("idle",), lambda rows: rows[0].rss / MIB, 80, unit="MiB", lower_is_better=True),
    Goal(
        "1,000 jobs in one request / 1,000 requests unbatched", ("disk-http-one", "legacy-http-1"), _first_answer, 500
    ),
    Goal("HTTP single jobs, 32 connections / constant answers", ("disk-http-32", "constant-http-32"), _ratio, 0.6),
)


def verdicts(rounds: Sequence[Round], *, main: float) -> list[Verdict]:
    """The targets that these rounds can tell of.

    Args:
        main: the main round trip in seconds.
    """
    found = []
    trips = sorted({rtt for one in rounds for _, rtt in one})
    for goal in GOALS:
        places = trips if goal.at == EVERY else [main if goal.at is None else goal.at]
        for at in places:
            verdict = _verdict(goal, rounds, at)
            if verdict is not None:
                found.append(verdict)
    return found


def _verdict(goal: Goal, rounds: Sequence[Round], at: float) -> Verdict | None:
    values = [
        goal.value([one[name, at] for name in goal.needs])
        for one in rounds
        if all((name, at) in one for name in goal.needs)
    ]
    if not values:
        return None
    return Verdict(
        goal.what,
        at,
        statistics.median(values),
        min(values),
        max(values),
        goal.at_least,
        goal.reach_for,
        goal.unit,
        goal.lower_is_better,
        judged=goal.at is not None or at == NEAR,
    )
