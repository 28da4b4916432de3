"""Looks at the sidecar once a second: the history behind the status page, and how late the event loop is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from sidecar.metrics import REASONS, Counts

if TYPE_CHECKING:
    from sidecar.forwarder import Forwarder
    from sidecar.intake import Intake
    from sidecar.upstream.link import Link

STEP: Final = 1.0  # s between two looks
HISTORY: Final = 300  # points that are kept: five minutes
KEEP_SIZES: Final = 10  # s between two records of the distributions, of which five minutes are kept
RATE_OVER: Final = 5  # s that a rate is the mean of
TURNED_AWAY: Final = ("full", "journal", "slow_disk")
"""Reasons of refusals that the store has, not upstream."""


class Point(NamedTuple):
    """One second.

    Args:
        at: unix seconds, at its end.
        taken, delivered, refused: jobs in it; `refused` by us, for want of room or of upstream.
        waiting: unsettled jobs at its end.
        turned_away: those of the refused that found no room, or a disk that didn't work.
    """

    at: int
    taken: int
    delivered: int
    refused: int
    waiting: int
    turned_away: int


class Marks(NamedTuple):
    """The distributions as they stood at one time."""

    at: float
    sizes: tuple[tuple[int, ...], ...]
    jobs: tuple[float, ...]
    commits: tuple[int, ...]
    passed: int
    confirmed: int
    taken: int


class Pulse:
    """The recent past.

    Attributes:
        points: the last seconds, the oldest first.
        refusing: the latest reason why jobs were not accepted, and when that was last seen (trio's clock).
        link_since: when the link came into its present state (trio's clock).
        stopped: no more looks come; who waits for one should go home.
    """

    def __init__(self, counts: Counts, intake: Intake, forwarder: Forwarder, link: Link) -> None:
        self._counts = counts
        self._intake = intake
        self._forwarder = forwarder
        self._link = link
        self._before = (0, 0, 0, 0)
        self._marks: deque[Marks] = deque(maxlen=HISTORY // KEEP_SIZES)
        self._link_up = False
        self._listeners: list[Callable[[], None]] = []
        self.points: deque[Point] = deque(maxlen=HISTORY)
        self.refusing: tuple[str, float] | None = None
        self.started = time.time()
        self.link_since = 0.0
        self.stopped = False

    async def run(self) -> None:
        """Look every second, until cancelled."""
        self.link_since = trio.current_time()
        self._marks.append(self.marks())
        due = trio.current_time()
        while True:
            due = max(due + STEP, trio.current_time())
            await trio.sleep_until(due)
            self._counts.loop_lag.record(max(0.0, trio.current_time() - due))
            self.look()
            self._tell()

    def stop(self) -> None:
        """Let those who watch go home: the sidecar is about to end."""
        self.stopped = True
        self._tell()

    def each_second(self, tell: Callable[[], None]) -> None:
        """Call `tell` after each look."""
        self._listeners.append(tell)

    def _tell(self) -> None:
        for tell in self._listeners:
            tell()

    def look(self) -> None:
        """Record one second."""
        counts = self._counts
        away = sum(counts.refused.get(reason, 0) for reason in TURNED_AWAY)
        now = (taken(counts), counts.delivered, sum(counts.refused.values()), away)
        steps = [after - before for after, before in zip(now, self._before, strict=True)]
        self._before = now
        new, delivered, refused, turned_away = steps
        self.points.append(Point(round(time.time()), new, delivered, refused, self._intake.waiting, turned_away))
        reason = self._intake.refusal_reason()
        if reason is not None:
            self.refusing = (reason, trio.current_time())
        up = self._link.pipe is not None
        if up is not self._link_up:
            self._link_up, self.link_since = up, trio.current_time()
        if not self._marks or trio.current_time() - self._marks[-1].at >= KEEP_SIZES:
            self._marks.append(self.marks())

    def marks(self) -> Marks:
        """The distributions now."""
        counts = self._counts
        return Marks(
            at=trio.current_time(),
            sizes=tuple(tuple(counts.batch_jobs[reason].counts) for reason in REASONS),
            jobs=tuple(counts.batch_jobs[reason].total for reason in REASONS),
            commits=tuple(counts.commit.counts),
            passed=lane(counts, "passed"),
            confirmed=lane(counts, "confirmed"),
            taken=taken(counts),
        )

    @property
    def earlier(self) -> Marks:
        """The distributions as they were some minutes ago, or at the start."""
        return self._marks[0] if self._marks else self.marks()

    def rate(self, what: str) -> float:
        """Jobs a second over the last seconds: `taken`, `delivered` or `refused`."""
        last = list(self.points)[-RATE_OVER:]
        return sum(getattr(point, what) for point in last) / len(last) if last else 0.0

    def within(self, seconds: int, what: str) -> int:
        """Jobs of the last so many seconds."""
        return sum(getattr(point, what) for point in list(self.points)[-seconds:])


def lane(counts: Counts, name: str) -> int:
    """Jobs of one lane, of all edges; for `passed` commands."""
    return sum(jobs for (_, lane_name), jobs in counts.taken.items() if lane_name == name)


def taken(counts: Counts) -> int:
    """Jobs that were taken into lanes of ours."""
    return lane(counts, "coalesced") + lane(counts, "confirmed")


def quantile(share: float, counts: Sequence[int], bounds: Sequence[float]) -> float | None:
    """The value below which a share (0-1) of a distribution lies, within its bucket by proportion; None when empty."""
    total = sum(counts)
    if not total:
        return None
    rank, seen, low = share * total, 0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if count and seen + count >= rank:
            return low + (high - low) * (rank - seen) / count
        seen += count
        low = high
    return bounds[-1]
