"""Plain pushes in memory mode: one task reads and answers them for all producers that have nothing else to say.

Where `+OK` waits for no disk, a task for each connection is a third of what a push costs: each waits by a registration
with the kernel and a switch of tasks. Here the sockets stay registered, and one task takes all that have something.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence
from functools import partial
from typing import cast

import trio

from sidecar.errors import Refusal
from sidecar.intake import Intake, Verdicts
from sidecar.jobs import Origin
from sidecar.logs import defect
from sidecar.producers.channel import PlainChannel
from sidecar.producers.replies import ReplyQueue
from sidecar.producers.riders import MOST_BYTES, Rider, certain, rotated
from sidecar.protocol.pushes import STAMP_STEP
from sidecar.protocol.replies import OK


class Shortcut:
    """The connections that are lent to this task."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._selector = selectors.DefaultSelector()
        self._place = 0

    @property
    def sources(self) -> int:
        """Connections that are lent now."""
        return len(self._selector.get_map())

    def rider(self, channel: PlainChannel, replies: ReplyQueue, origin: Origin) -> Rider:
        """A connection that may be lent from now on."""
        del replies  # nothing is answered late here
        return Rider(self, channel, origin)

    def watch(self, source: Rider) -> None:
        """Read it from now on."""
        self._selector.register(source, selectors.EVENT_READ)

    def unwatch(self, source: Rider) -> bool:
        """Don't read it any more; False when it isn't read."""
        try:
            self._selector.unregister(source)
        except KeyError:
            return False
        return True

    async def run(self) -> None:
        """Take what comes, until cancelled."""
        descriptor = cast("selectors.EpollSelector", self._selector).fileno()  # or its kin on macOS
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            ready = [cast(Rider, key.fileobj) for key, _ in self._selector.select(0)]
            if ready:
                self._read(rotated(ready, self._place))

    def _read(self, ready: Sequence[Rider]) -> None:
        clock, size = time.time(), 0
        for rider in ready:
            if size > MOST_BYTES:
                return
            self._place += 1
            data = rider.read()
            if data is None:
                continue
            size += len(data)
            may_take = not rider.channel.unsent and self._intake.refusal_reason() is None
            jobs = certain(data, clock) if may_take else None
            if jobs is None:
                self.unwatch(rider)
                rider.hand_back(data)
                continue
            try:
                self._intake.submit(jobs, rider.origin, partial(_answer, rider.channel, len(jobs)))
            except Exception as error:
                defect("connection", error, "it is closed")
                self.unwatch(rider)
                rider.hand_back(b"")
            clock += len(jobs) * STAMP_STEP


def _answer(channel: PlainChannel, jobs: int, verdicts: Verdicts) -> None:
    channel.write(verdicts.line() * jobs if isinstance(verdicts, Refusal) else OK * jobs)
