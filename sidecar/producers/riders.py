"""Connections that are lent: somebody else reads them while they say nothing but plain pushes, and answers those.

The invariant: a connection has one reader, its own task or whom it is lent to, and is lent only while nothing is owed
to its client; so replies keep their order.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol, TypeVar, cast

import outcome
import trio

from sidecar.jobs import Origin
from sidecar.producers.channel import RECEIVE_BYTES, PlainChannel
from sidecar.producers.replies import ReplyQueue
from sidecar.protocol.jobs import Job
from sidecar.protocol.pushes import plain_pushes

MOST_BYTES = 256 * 1024
"""Of pushes that are read at once, about: some 30 ms of work, during which the event loop may wait."""

T = TypeVar("T")


class Borrower(Protocol):
    """Who looks at lent connections."""

    def watch(self, source: Rider) -> None:
        """Read it from now on."""

    def unwatch(self, source: Rider) -> bool:
        """Don't read it any more; False when it isn't read."""


class Desk(Protocol):
    """Whom connections are lent to: the journal's thread, or one task for all."""

    def rider(self, channel: PlainChannel, replies: ReplyQueue, origin: Origin) -> Rider:
        """A connection that may be lent from now on."""

    async def run(self) -> None:
        """Do what there is to do on the event loop, until cancelled."""


class Rider:
    """One connection that can be lent.

    Args:
        origin: order domain of its jobs; no other connection's.

    Attributes:
        stalled_since: when its reader got stuck (trio's clock), where that was why the connection came back.
    """

    def __init__(self, borrower: Borrower, channel: PlainChannel, origin: Origin) -> None:
        self._borrower = borrower
        self.channel = channel
        self.origin = origin
        self._sock: socket.socket = channel.socket
        self._descriptor = self._sock.fileno()
        self._task: trio.lowlevel.Task | None = None
        self.stalled_since = 0.0

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._descriptor

    async def receive(self) -> bytes | None:
        """Lend the connection until something comes that isn't taken there.

        Returns:
            what came, untouched; empty at the end of the connection; None: the connection is back because of the disk.
        """
        if self._sock.fileno() < 0:
            return b""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            self._borrower.unwatch(self)
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        self._borrower.watch(self)
        return cast("bytes | None", await trio.lowlevel.wait_task_rescheduled(abort))

    def hand_back(self, data: bytes | None) -> None:
        """The connection is its own task's again."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Value(data))

    def read(self) -> bytes | None:
        """What has come; empty at the end, however it came; None: nothing after all."""
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""


def certain(data: bytes, clock: float) -> list[Job] | None:
    """The jobs of data that is nothing but plain pushes; None: the connection's own task must look at it."""
    try:
        return plain_pushes(data, clock)
    except Exception:
        return None  # a defect: that task meets it again, says so, and ends this connection alone


def rotated(riders: Sequence[T], place: int) -> Sequence[T]:
    """The same, each as often the first as any other while `place` counts on."""
    first = place % len(riders)
    return (*riders[first:], *riders[:first]) if first else riders
