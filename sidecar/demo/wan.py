"""A simulated WAN: a TCP forwarder that is half a round trip away in each direction.

Every piece of data carries the moment at which it is due at the other end, so the delay doesn't depend on how much
is on its way, and errors of the timer don't add up. Pipelining stays what it is: any number of bytes, up to a
bound, travel at the same time.

What it can't show: the local kernel confirms every byte at once, so a cut link is noticed by silence only, never
by TCP's own timeouts.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Awaitable, Callable

import trio

MAX_ON_THE_WAY = 32 * 1024 * 1024  # bytes in one direction of a connection: 640 MB/s at a round trip of 100 ms
SETUP_ROUND_TRIPS = 1.5  # SYN, SYN-ACK and the ACK that lets the server accept
_CHUNK = 64 * 1024  # bytes read at once

Connect = Callable[[], Awaitable[trio.abc.HalfCloseableStream]]


class SimulatedWan:
    """Forwards connections to a server as if it were far away.

    Args:
        connect: opens a connection to the server; an `OSError` resets the client that wanted it.
        rtt: round trip in seconds, 0 or more.
        max_on_the_way: bound of the bytes that travel in one direction of a connection.
    """

    def __init__(self, connect: Connect, *, rtt: float, max_on_the_way: int = MAX_ON_THE_WAY) -> None:
        self.rtt = rtt
        self.port = 0
        self._connect = connect
        self._max_on_the_way = max_on_the_way
        self._link = _Link(rtt / 2)

    async def run(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Forwards until it is cancelled. Reports the port it is bound to."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self.carry, listeners)
            task_status.started(self.port)

    def cut(self) -> None:
        """Lets nothing through from now on, in either direction; connections stay open, new ones wait."""
        self._link.cut()

    def restore(self) -> None:
        """Ends `cut`: what was held back is sent once more, so it arrives half a round trip from now."""
        self._link.restore()

    async def carry(self, near: trio.abc.HalfCloseableStream) -> None:
        """Carries one connection until both directions have ended. Closes it."""
        async with near:
            await trio.sleep(self.rtt * SETUP_ROUND_TRIPS)
            await self._link.passed(trio.current_time())
            try:
                far = await self._connect()
            except OSError:
                await _reset(near)  # what a client sees of a server that is not there
                return
            async with far, trio.open_nursery() as nursery:
                nursery.start_soon(self._carry_one_way, near, far, nursery.cancel_scope)
                nursery.start_soon(self._carry_one_way, far, near, nursery.cancel_scope)

    async def _carry_one_way(
        self,
        source: trio.abc.HalfCloseableStream,
        sink: trio.abc.HalfCloseableStream,
        connection: trio.CancelScope,
    ) -> None:
        way = _Way(source, sink, link=self._link, bound=self._max_on_the_way)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.take)
            await way.deliver()
            if way.broken:
                await _reset(source)
                await _reset(sink)
                connection.cancel()


class _Link:
    """Whether anything gets through, and how long that takes.

    Args:
        delay: seconds one way.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self._restored_at = -math.inf
        self._up = trio.Event()
        self._up.set()

    def cut(self) -> None:
        if self._up.is_set():
            self._up = trio.Event()

    def restore(self) -> None:
        if not self._up.is_set():
            self._restored_at = trio.current_time()
            self._up.set()

    async def passed(self, due: float) -> None:
        """Waits until `due`, on trio's clock, or until what was held back then is there at the second try."""
        await trio.sleep_until(due)
        while not self._up.is_set():
            await self._up.wait()
            await trio.sleep_until(self._restored_at + self.delay)


class _Way:
    """One direction of a connection: a queue of data, each with the moment it is due."""

    def __init__(
        self,
        source: trio.abc.HalfCloseableStream,
        sink: trio.abc.HalfCloseableStream,
        *,
        link: _Link,
        bound: int,
    ) -> None:
        self.broken = False
        self._source = source
        self._sink = sink
        self._link = link
        self._bound = bound
        self._on_the_way = 0  # bytes
        self._room = trio.lowlevel.ParkingLot()
        self._enter, self._leave = trio.open_memory_channel[tuple[float, bytes | None]](math.inf)

    async def take(self) -> None:
        """Reads the source to its end (an empty piece) or to its reset (None)."""
        data: bytes | None = b"-"
        while data:
            while self._on_the_way >= self._bound:
                await self._room.park()
            try:
                data = bytes(await self._source.receive_some(_CHUNK))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = None
            self._on_the_way += len(data or b"")
            self._enter.send_nowait((trio.current_time() + self._link.delay, data))

    async def deliver(self) -> None:
        """Writes each piece when it is due; `broken` tells afterwards that an end was reset."""
        while True:
            due, data = await self._leave.receive()
            await self._link.passed(due)
            try:
                if data:
                    await self._sink.send_all(data)
                elif data is not None:
                    await self._sink.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = None
            if data is None:
                self.broken = True
                return
            if not data:
                return
            self._on_the_way -= len(data)
            self._room.unpark_all()


async def _reset(stream: trio.abc.HalfCloseableStream) -> None:
    """Closes a TCP connection with a reset, as a lost or refused one ends."""
    if isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)
