"""Replies in the order of the commands, whenever each of them becomes known."""

from __future__ import annotations

from collections import deque

import trio

from sidecar.logs import defect
from sidecar.producers.channel import Channel, Loan


class Slot:
    """The place of one command's reply, or of several commands' in a row; filled once."""

    __slots__ = ("data", "loan", "queue", "weight")

    def __init__(self, queue: ReplyQueue, weight: int) -> None:
        self.queue = queue
        self.weight = weight
        self.data: bytes | None = None
        self.loan: Loan | None = None
        """The thread that has it may have sent this reply; then it is what was lent."""

    def fill(self, data: bytes) -> None:
        """The reply is known; it leaves as soon as all before it have left."""
        self.data = data
        try:
            self.queue.filled(self)
        except Exception as error:  # what is owed on this connection can't be told apart any more
            defect("reply to a client", error, "its connection is closed")
            self.queue.give_up()


class ReplyQueue:
    """The replies that one connection is owed.

    Args:
        channel: where they go.
    """

    __slots__ = ("_changed", "_channel", "_slots", "owed")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._slots: deque[Slot] = deque()
        self._changed: trio.Event | None = None
        self.owed = 0
        """Commands without a reply."""

    def slot(self, weight: int = 1) -> Slot:
        """A place behind all others, for the replies of `weight` commands."""
        slot = Slot(self, weight)
        self._slots.append(slot)
        self.owed += weight
        return slot

    def filled(self, slot: Slot) -> None:
        """Send what has become sendable."""
        slots = self._slots
        if not slots or slots[0] is not slot:
            return
        if slot.loan is not None and slot.data is not None:
            self._channel.take_back(slot.loan, slot.data)
            slot.data = b""
        ready = []
        while slots and (data := slots[0].data) is not None:
            self.owed -= slots.popleft().weight
            ready.append(data)
        self._channel.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def give_up(self) -> None:
        """Nothing is owed any more, and the connection ends: better no reply than another command's."""
        self._slots.clear()
        self.owed = 0
        if self._changed is not None:
            self._changed.set()
            self._changed = None
        self._channel.close()

    async def at_most(self, owed: int) -> None:
        """Wait until no more than `owed` replies are owed."""
        while self.owed > owed:
            if self._changed is None:
                self._changed = trio.Event()
            await self._changed.wait()
