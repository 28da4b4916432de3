"""One clock for all answers: what is owed for longer than the limit is answered by us.

Every command gets the same time, so the queue is in order of its deadlines and costs one append a command.
"""

from __future__ import annotations

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
        self._idle: trio.Event | None = None

    def add(self, owed: Owed) -> None:
        """Start the clock for an answer."""
        queue = self._queue
        while queue and queue[0][1].answered:
            queue.popleft()
        queue.append((trio.current_time() + self.limit, owed))
        if self._idle is not None:
            self._idle.set()
            self._idle = None

    async def run(self) -> None:
        """Expire what is due, until cancelled."""
        while True:
            while self._queue and (self._queue[0][1].answered or self._queue[0][0] <= trio.current_time()):
                _, owed = self._queue.popleft()
                if not owed.answered:
                    owed.expire()
            if self._queue:
                await trio.sleep_until(self._queue[0][0])
            else:
                self._idle = trio.Event()
                await self._idle.wait()
