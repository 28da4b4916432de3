"""One clock for all answers: what is owed for longer than the limit is answered by us.

Every command gets the same time from its arrival, so nearly all of them join the end of the queue of deadlines.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import trio

ANSWER_WITHIN = 4.0
"""Seconds from a command's arrival to its reply. Clients give up at 5 s, and some then take a late reply for the next
command's."""


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
        self._queue: deque[tuple[float, Owed]] = deque()
        self._changed = trio.Event()  # something is due earlier than all else

    def add(self, owed: Owed, *, since: float | None = None) -> None:
        """Start the clock for an answer.

        Args:
            since: when the command arrived (trio's clock); now, by default. One that had to wait for the replies before
                it has less time left, or none.
        """
        queue = self._queue
        while queue and queue[0][1].answered:
            queue.popleft()
        due = (trio.current_time() if since is None else since) + self.limit
        later: list[tuple[float, Owed]] = []
        while queue and queue[-1][0] > due:
            later.append(queue.pop())
        queue.append((due, owed))
        if len(queue) == 1:
            self._changed.set()
        queue.extend(reversed(later))

    async def run(self) -> None:
        """Expire what is due, until cancelled."""
        while True:
            self._changed = trio.Event()
            while self._queue and (self._queue[0][1].answered or self._queue[0][0] <= trio.current_time()):
                _, owed = self._queue.popleft()
                if not owed.answered:
                    owed.expire()
            with trio.move_on_at(self._queue[0][0] if self._queue else math.inf):
                await self._changed.wait()
