"""The time that timers count: seconds while this process runs.

A process can be frozen: SIGSTOP, `docker pause`, a virtual machine on its way to another host, a step that holds the
event loop up. Meanwhile replies arrive and nobody reads them. With a clock that goes on every timer is over at the
moment of waking up, before anything was read, and a peer that did answer is taken for silent. So this one, which all of
trio's timers use, hardly goes on meanwhile. It knows by looking often: the event loop looks in each of its turns and
turns every half a second at least, so a longer while between two looks was no waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

LOOK_EVERY = 0.5
"""Seconds that the event loop sleeps at most."""
MOST_AT_ONCE = 1.0
"""Seconds that count of what lies between two looks. Not none: a process that gets the processor for a moment each
second still has to come to its timers."""


class RunningClock(trio.abc.Clock):
    """Seconds while the process runs, for `trio.run(clock=…)`.

    Args:
        real: seconds of a clock that goes on.
    """

    def __init__(self, real: Callable[[], float] = time.monotonic) -> None:
        self._real = real
        self._seen = real()
        self._lost = 0.0
        self.frozen: Callable[[float], None] | None = None
        """Called with the seconds of a freeze, before anything else after it; from any place of the event loop."""

    def start_clock(self) -> None:
        self._seen = self._real()

    def current_time(self) -> float:
        now = self._real()
        gap = now - self._seen
        if gap > MOST_AT_ONCE:
            self._lost += gap - MOST_AT_ONCE  # before `_seen`: another thread may look in between
            self._seen = now
            if self.frozen is not None:
                self.frozen(gap)
        else:
            self._seen = now
        return now - self._lost

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return min(deadline - self.current_time(), LOOK_EVERY)

    def unseen(self) -> float:
        """Seconds since the event loop had its last look, from any thread."""
        return self._real() - self._seen

    def elsewhere(self) -> float:
        """The same time for other threads: it stands still while the event loop does."""
        return min(self._real(), self._seen + MOST_AT_ONCE) - self._lost


def running_clock() -> RunningClock | None:
    """The event loop's clock, where it is one of these."""
    clock = trio.lowlevel.current_clock() if trio.lowlevel.in_trio_run() else None
    return clock if isinstance(clock, RunningClock) else None


def for_threads() -> Callable[[], float]:
    """A clock that other threads can read and that goes with the event loop's, where that is a `RunningClock`."""
    clock = running_clock()
    return clock.elsewhere if clock is not None else time.monotonic
