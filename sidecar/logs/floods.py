"""Keeping floods of records readable: the first few of each window word for word, the rest summed up.

Nothing here sleeps or reads a clock: callers give `now` (seconds of any steady clock), and a task of theirs calls
`tick` when `due` has come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from structlog.typing import FilteringBoundLogger

FLUSHES_A_SECOND: Final = 5  # of each kind, word for word
FLUSH_WINDOW: Final = 1.0  # s

ALIKE_A_WINDOW: Final = 5  # of each kind and key, word for word
ALIKE_WINDOW: Final = 10.0  # s
MAX_KINDS: Final = 256  # kinds that are followed at a time; further ones share one

TIMEOUT: Final = "timeout"


@dataclass(slots=True)
class Window:
    """The first few events of a time span are let through, the rest counted.

    Args:
        first: how many are let through.
        length: of the span in seconds; it starts with its first event.
    """

    first: int
    length: float
    ends: float = -math.inf
    passed: int = 0
    left_out: int = 0
    weight: int = 0

    def opens(self, now: float) -> bool:
        """Whether a new span starts with an event of now. What was left out of the last one is to be told before."""
        return now >= self.ends

    def open(self, now: float) -> None:
        """Start a new span."""
        self.ends, self.passed, self.left_out, self.weight = now + self.length, 0, 0, 0

    def admits(self, weight: int = 1) -> bool:
        """Count one event of the running span; whether it is to be let through."""
        if self.passed < self.first:
            self.passed += 1
            return True
        self.left_out += 1
        self.weight += weight
        return False


class FlushLog:
    """The lines about batches: sent because full or due, and enqueued. Called once a batch."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._windows: dict[str, Window] = {}

    def flushed(self, jobs: int, reason: str, now: float) -> None:
        """A batch of `jobs` leaves: because of `TIMEOUT`, or of what stands in brackets (`batch full`)."""
        if self._admits(reason, jobs, now):
            if reason == TIMEOUT:
                message = f"Batch flusher: flushing {jobs} jobs after timeout"
            else:
                message = f"Auto-flushing batch of {jobs} jobs ({reason})"
            self._log.info("batch_flushed", message=message, jobs=jobs, reason=reason)

    def enqueued(self, jobs: int, now: float) -> None:
        """Upstream has `jobs` of a batch."""
        if self._admits("", jobs, now):
            self._log.info("batch_enqueued", message=f"Enqueued batch of {jobs} jobs", jobs=jobs)

    @property
    def due(self) -> float | None:
        """When `tick` has a summary to write, None when there is none."""
        return min((window.ends for window in self._windows.values() if window.left_out), default=None)

    def tick(self, now: float) -> None:
        """Write the summaries of the spans that are over; at the end of all call it with `math.inf`."""
        for reason, window in self._windows.items():
            if now >= window.ends:
                self._sum_up(reason, window)

    def _admits(self, reason: str, jobs: int, now: float) -> bool:
        window = self._windows.get(reason)
        if window is None:
            window = self._windows[reason] = Window(FLUSHES_A_SECOND, FLUSH_WINDOW)
        if window.opens(now):
            self._sum_up(reason, window)
            window.open(now)
        return window.admits(jobs)

    def _sum_up(self, reason: str, window: Window) -> None:
        batches, jobs = window.left_out, window.weight
        window.left_out = window.weight = 0
        if not batches:
            return
        count = f"{batches:,} more {'batch' if batches == 1 else 'batches'}, {_jobs(jobs)}"
        if not reason:
            self._log.info("batch_enqueued", message=f"Enqueued {count}", batches=batches, jobs=jobs)
            return
        if reason == TIMEOUT:
            message = f"Batch flusher: flushing {count} after timeout"
        else:
            message = f"Auto-flushing {count} ({reason})"
        self._log.info("batch_flushed", message=message, batches=batches, jobs=jobs, reason=reason)


def _jobs(count: int) -> str:
    """`1 job`, `24,800 jobs`: for summaries; the lines of single batches have fixed words."""
    return f"{count:,} {'job' if count == 1 else 'jobs'}"


@dataclass(slots=True)
class _Alike:
    """Records of one event and key, and the words of the last one."""

    window: Window = field(default_factory=lambda: Window(ALIKE_A_WINDOW, ALIKE_WINDOW))
    event: str = ""
    level: str = "warning"
    message: str = ""


class FloodLog:
    """Any other record that one bad producer or a flapping link can repeat: says how many were left out."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._kinds: dict[tuple[str, str], _Alike] = {}

    def warning(self, now: float, event: str, *, message: str, key: str = "", **fields: object) -> None:
        """As `log.warning`, for one of many alike.

        Args:
            key: what tells the culprits apart (an address), so that one doesn't hide the others.
        """
        self._write(now, "warning", event, message, key, fields)

    def error(self, now: float, event: str, *, message: str, key: str = "", **fields: object) -> None:
        """As `log.error`, for one of many alike."""
        self._write(now, "error", event, message, key, fields)

    def info(self, now: float, event: str, *, message: str, key: str = "", **fields: object) -> None:
        """As `log.info`, for one of many alike."""
        self._write(now, "info", event, message, key, fields)

    @property
    def due(self) -> float | None:
        """When `tick` has something to write, None when there is nothing."""
        return min((each.window.ends for each in self._kinds.values() if each.window.left_out), default=None)

    def tick(self, now: float) -> None:
        """Write the summaries of the spans that are over and forget them; at the end of all with `math.inf`."""
        for kind, alike in list(self._kinds.items()):
            if alike.window.opens(now):
                self._sum_up(alike)
                del self._kinds[kind]

    def _write(self, now: float, level: str, event: str, message: str, key: str, fields: dict[str, object]) -> None:
        alike = self._of((event, key), now)
        if alike.window.opens(now):
            self._sum_up(alike)
            alike.window.open(now)
        alike.event, alike.level, alike.message = event, level, message
        if alike.window.admits():
            getattr(self._log, level)(event, message=message, **fields)

    def _of(self, kind: tuple[str, str], now: float) -> _Alike:
        found = self._kinds.get(kind)
        if found is None and len(self._kinds) >= MAX_KINDS:
            self.tick(now)
        if found is None and len(self._kinds) >= MAX_KINDS:
            kind = (kind[0], "…")  # one for all that found no place; at most one such an event
            found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = _Alike()
        return found

    def _sum_up(self, alike: _Alike) -> None:
        left_out = alike.window.left_out
        if not left_out:
            return
        alike.window.left_out = 0
        getattr(self._log, alike.level)(
            alike.event,
            message=f"{left_out:,} more like this in {ALIKE_WINDOW:.0f} s: {alike.message}",
            left_out=left_out,
        )
