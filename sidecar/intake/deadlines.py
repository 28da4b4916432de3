"""One clock for all answers: what is owed for longer than the limit is answered by us.

Every command gets the same time from its arrival. What is answered stays in the heap for a while, so that an answer
costs nothing here; it is thrown out when the heap has doubled.
"""

from __future__ import annotations

import itertools
import math
from heapq import heapify, heappop, heappush
from typing import Protocol

import trio

from sidecar.supervision import guarded

ANSWER_WITHIN = 4.0
"""Seconds from a command's arrival to its reply. Clients give up at 5 s, and some then take a late reply for the next
command's."""
TIDY_FIRST = 1_000
"""Commands below which the answered ones among them are not worth a look."""


class Owed(Protocol):
    """Something that is owed an answer."""

    @property
    def answered(self) -> bool:
        """True when nothing is owed any more."""

    def expire(self) -> None:
        """The time is over: answer now."""


class Deadlines:
    """Expires what is not answered in time.

    Args:
        limit: seconds that an answer may take.
    """

    def __init__(self, limit: float = ANSWER_WITHIN) -> None:
        self.limit = limit
        self._heap: list[tuple[float, int, Owed]] = []
        self._numbers = itertools.count()
        self._tidy_at = TIDY_FIRST
        self._asleep_until = -math.inf
        self._changed = trio.Event()  # something is due before that

    def add(self, owed: Owed, *, since: float | None = None) -> None:
        """Start the clock for an answer.

        Args:
            since: when the command arrived (trio's clock); now, by default. One that had to wait for the replies before
                it has less time left, or none.
        """
        heap = self._heap
        while heap and heap[0][2].answered:
            heappop(heap)
        if len(heap) >= self._tidy_at:
            heap[:] = [each for each in heap if not each[2].answered]
            heapify(heap)
            self._tidy_at = max(TIDY_FIRST, 2 * len(heap))
        due = (trio.current_time() if since is None else since) + self.limit
        heappush(heap, (due, next(self._numbers), owed))
        if due < self._asleep_until:
            self._changed.set()

    def expire_all(self) -> None:
        """At the end: answer all that is owed, now."""
        heap, self._heap = self._heap, []
        for _, _, owed in heap:
            if not owed.answered:
                owed.expire()

    async def run(self) -> None:
        """Expire what is due, until cancelled."""
        while True:
            self._changed = trio.Event()
            self._asleep_until = -math.inf
            while self._heap and (self._heap[0][2].answered or self._heap[0][0] <= trio.current_time()):
                _, _, owed = heappop(self._heap)
                if not owed.answered:
                    guarded("deadline", owed.expire)
            self._asleep_until = self._heap[0][0] if self._heap else math.inf
            with trio.move_on_at(self._asleep_until):
                await self._changed.wait()
            await trio.lowlevel.checkpoint()  # replies that have come by now are read before anything is judged
