"""One budget for the bytes of clients: commands and HTTP bodies that are being received, or wait for their answer.

Small commands are never held up. Others grow within `POOL` bytes together, and up to `MEDIUM`; beyond it one at a time
grows as it likes, the first that began. Who has no room isn't read from meanwhile. So each is received whole sooner or
later, and together they never take more than `POOL` and one of the largest. Who holds others up for too long, and who
has waited for too long, is refused in words; for one of a medium size those give way who wait to be large.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from sidecar.protocol.lines import MAX_LINE

POOL: Final = 6 * 1024 * 1024
"""Bytes of all commands but the one that grows as it likes."""
MEDIUM: Final = 3 * 1024 * 1024 // 2
"""Bytes of a command above which it is the only one that grows."""
SMALL: Final = 64 * 1024
"""Bytes of one client that may be received at any time: as much as is read at once."""
LARGE: Final = 4 * 1024 * 1024
"""Bytes of a command that is worth tidying up behind it."""
WAIT: Final = 4.0
"""Seconds that a client waits unread for its turn."""
TURN, PAUSE = 2.0, 0.25
"""Seconds that one whose turn it is may take while others wait, in all and without a byte."""
GIVE_WAY: Final = 0.5
"""Seconds that one of a medium size waits until one that waits to be large gives way."""
LOOK_EVERY: Final = 0.05
"""Seconds between looks for room among the jobs that are held, which tell nobody."""
MAX_WAITING: Final = 32
"""Clients that wait for their turn; whoever comes then is refused at once. What HTTP has read ahead stays in memory."""
MOST: Final = POOL + MAX_LINE + MAX_WAITING * 2 * SMALL
"""Bytes of all clients together, about."""

OTHERS = "memory full: other large commands are being received"
SLOW = "memory full: it takes too long to arrive, and others wait"

T = TypeVar("T")


class NoRoom(Exception):
    """A command is refused in the middle of being received; its text is for the client."""


def always() -> bool:
    """There is room."""
    return True


class Budget:
    """What all clients have together.

    Args:
        has_room: whether there is room for the jobs of one of the largest commands, beside those that are held already.

    Attributes:
        used: bytes.
        large: bytes of large commands that were let go of so far.
        begun: who is in the middle of a command, or has a large one unanswered, in the order of their beginnings.
    """

    def __init__(self, has_room: Callable[[], bool] = always) -> None:
        self._has_room = has_room
        self.used = 0
        self.large = 0
        self.begun: dict[Share, None] = {}
        self._waiting = 0
        self._changed = trio.Event()

    def share(self) -> Share:
        """The part of one more client."""
        return Share(self)

    def _first(self) -> Share | None:
        """The large command that may grow."""
        return next((share for share in self.begun if share.size > MEDIUM), None)

    def make_room(self) -> None:
        """End the oldest commands until all fit: so many clients are in the middle of small ones."""
        first = self._first()
        for share in list(self.begun):
            if self.used <= MOST:
                return
            if share is not first:
                share.evict("memory full: too many unfinished commands")

    def tell(self) -> None:
        """Something has changed for those who wait."""
        if self._waiting:
            self._changed.set()
            self._changed = trio.Event()

    async def turn(self, share: Share) -> None:
        """Wait until a share may grow.

        Raises:
            NoRoom: it took too long.
        """
        if self._waiting >= MAX_WAITING:
            raise NoRoom("memory full: too many large commands are being received")
        self._waiting += 1
        try:
            with trio.move_on_at(share.waits_until()):
                while not self.may_grow(share):
                    if not self._hurry(share):
                        with trio.move_on_after(LOOK_EVERY):
                            await self._changed.wait()
        finally:
            self._waiting -= 1
        if not self.may_grow(share):
            raise NoRoom(OTHERS)

    def _hurry(self, waiting: Share) -> bool:
        """Have somebody give up who holds others up, if anybody does."""
        first, now = self._first(), trio.current_time()
        large = waiting.size > MEDIUM
        for share in list(self.begun):
            if share is not waiting and share.dawdles(now, first=large and share is first) and share.evict(SLOW):
                return True
        if large or now < waiting.waits_until() - WAIT + GIVE_WAY:
            return False
        others = [share for share in self.begun if share.size > MEDIUM and share is not first]
        return any(share.evict(OTHERS) for share in reversed(others))

    def may_grow(self, share: Share) -> bool:
        """Whether more of a command may be received."""
        first = self._first()
        if share.size > MEDIUM:
            return share is first and self._has_room()
        return self.used - (first.size if first is not None else 0) <= POOL


class Share:
    """The part of one client.

    Attributes:
        size: bytes of it that are received and neither answered nor let go of.
    """

    __slots__ = ("_asked_at", "_budget", "_evicted", "_scope", "_waited_for", "_waits_until", "size")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._scope: trio.CancelScope | None = None
        self.size = 0
        self._evicted: str | None = None
        self._waited_for = math.inf  # since when others wait for it
        self._waits_until = math.inf  # once it has to wait
        self._asked_at = math.inf  # for the next bytes

    def grow(self, size: int) -> None:
        """So many bytes have come."""
        self.size += size
        self._budget.used += size
        if self.size > SMALL:
            self._begin()

    def _begin(self) -> None:
        if self not in self._budget.begun:
            self._budget.begun[self] = None
            self._waited_for = self._waits_until = math.inf

    def shrink_to(self, size: int) -> None:
        """So many bytes are left, or fewer: what was given up is given up."""
        budget = self._budget
        size = min(size, self.size)
        budget.used += size - self.size
        if self.size > LARGE:
            budget.large += self.size - size
        self.size = size
        if size <= SMALL and self in budget.begun:
            del budget.begun[self]
        budget.tell()

    def close(self) -> None:
        """The client has left."""
        self.shrink_to(0)

    def waits_until(self) -> float:
        """Until when it waits, in all, for the rest of this command (trio's clock)."""
        self._waits_until = min(self._waits_until, trio.current_time() + WAIT)
        return self._waits_until

    def dawdles(self, now: float, *, first: bool) -> bool:
        """Whether it pauses, or is the one that grows as it likes and takes too long, while others wait.

        Args:
            now: trio's clock.
        """
        if first:
            self._waited_for = min(self._waited_for, now)
        return now >= min(self._waited_for + TURN, self._asked_at + PAUSE)

    async def more(self, receive: Callable[[], Awaitable[T]]) -> T:
        """Receive more of a command whose end has not come.

        Raises:
            NoRoom: it must give up.
        """
        budget = self._budget
        self._begin()
        try:
            with trio.CancelScope() as self._scope:
                if self.size > SMALL and not budget.may_grow(self):
                    await budget.turn(self)
                elif budget.used > MOST:
                    budget.make_room()
                self._asked_at = trio.current_time()
                received = await receive()
                if self._evicted is None:
                    return received
        finally:
            self._scope = None
            self._asked_at = math.inf
        assert self._evicted is not None
        raise NoRoom(self._evicted)

    def evict(self, why: str) -> bool:
        """Have it give up, if it is in the middle of a command: what is whole will be answered soon."""
        if self._scope is None:
            return False
        self._evicted = why
        self._scope.cancel()
        self.close()
        return True
