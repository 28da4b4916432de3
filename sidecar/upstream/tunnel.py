"""The upstream connection that belongs to one consumer.

Opened with the consumer's own HELLO, never shared and never silently dialled again: a worker's state (quiet, terminate)
hangs on its first connection. When it ends, the consumer's connection ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import trio

from sidecar.protocol.handshake import Hello
from sidecar.upstream.dial import Dialer
from sidecar.upstream.pipe import Pipe, PipeLost
from sidecar.upstream.side import Answer, Passed

AT_ONCE = 500
"""Tunnels that are being opened together: a quarter of the connections that Faktory takes. Others wait for a place."""


class Worker:
    """The connections of one `wid`, and which of them says HELLO first.

    Faktory (server/workers.go) keeps the first connection of a `wid` as the worker while any of them lives, and its
    quiet state reaches only that one. So as long as none stands they greet one after the other, in the order in which
    they came; once one was accepted, and while one stands, the order means nothing and nobody waits.
    """

    def __init__(self) -> None:
        self._standing = 0
        self._line: dict[trio.Event, None] = {}  # who came while none stood, in order

    @contextmanager
    def place(self) -> Iterator[trio.Event]:
        """A place in the order, until the greeting is answered or given up; the event tells that its turn has come."""
        turn = trio.Event()
        self._line[turn] = None
        self._call()
        try:
            yield turn
        finally:
            self._line.pop(turn, None)
            self._call()

    def stands(self) -> None:
        """One was accepted."""
        self._standing += 1
        self._call()

    def ended(self) -> None:
        """One that was accepted has ended."""
        self._standing -= 1

    def _call(self) -> None:
        if self._standing:
            for turn in self._line:
                turn.set()
            self._line.clear()
        elif self._line:
            next(iter(self._line)).set()


class Tunnel:
    """One consumer's way to upstream.

    Args:
        pipe: a connection of its own, after the handshake.
        worker: whose it is.
    """

    def __init__(self, pipe: Pipe, worker: Worker) -> None:
        self._pipe = pipe
        self._worker = worker
        worker.stands()

    def send(self, line: bytes, answer: Answer) -> Passed:
        """Pass a command; when the tunnel is lost before the reply there is none: the connection ends with it."""
        passed = Passed(line, answer)
        passed.sent = True

        def answered(reply: bytes | None) -> None:
            if reply is not None:
                answer(reply)

        self._pipe.send([line, b"\r\n"], answered)
        return passed

    @property
    def unsent(self) -> int:
        """Bytes of commands that wait to be sent."""
        return self._pipe.unsent

    def end(self) -> None:
        """The consumer has left: let upstream know before the connection closes."""
        self._pipe.write(b"END\r\n")

    async def run(self) -> None:
        """Carry bytes until upstream ends the connection."""
        try:
            await self._pipe.run()
        except PipeLost:
            return
        finally:
            self._worker.ended()


class Tunnels:
    """Opens tunnels, so many at a time.

    Args:
        dialer: makes the connections.
    """

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._workers: WeakValueDictionary[str, Worker] = WeakValueDictionary()
        self._places = trio.CapacityLimiter(AT_ONCE)

    async def open(self, hello: Hello, unasked: Callable[[bytes], None]) -> Tunnel:
        """Connect to upstream as this consumer.

        Args:
            unasked: called with what upstream says without being asked (`too many connections`), before it ends.

        Raises:
            DialError: it can't be reached, or refuses.
        """
        dialer, username = self._dialer, self._dialer.address.username
        worker = self._workers.setdefault(hello.wid, Worker()) if hello.wid else Worker()
        with worker.place() as turn:
            async with self._places:
                connected = await dialer.dial(
                    lambda greeting: hello.for_upstream(greeting, dialer.password, username), turn=turn
                )
            return Tunnel(Pipe(connected, unasked=unasked), worker)
