"""The bytes of one local connection, plain or TLS.

Writing never blocks and never fails: what the kernel doesn't take at once is kept and sent by a task that lives only as
long as that, and a connection that broke swallows the rest; reading tells of the end. So a reply costs one system call
and no task switch, which is most of what a producer waits for besides the disk.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

RECEIVE_BYTES = 64 * 1024

Spawn = Callable[[Callable[[], Awaitable[None]]], None]
"""Starts a task that may outlive the caller, but not the listener."""


class Channel(Protocol):
    """A connection as the protocol's edge needs it."""

    async def receive(self) -> bytes:
        """The next bytes; empty at the end, however it came."""

    def write(self, data: bytes) -> None:
        """Send, now or soon, in order."""

    @property
    def unsent(self) -> int:
        """Bytes written that the peer's side hasn't taken yet."""

    async def flushed(self) -> None:
        """Wait until all that was written is sent, or can't be."""

    def close(self) -> None:
        """Close at once; bytes that are not sent are lost."""


class _Outgoing:
    """What waits to be sent, and those who wait for that."""

    __slots__ = ("chunks", "empty", "size")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.empty: trio.Event | None = None

    def add(self, data: bytes) -> None:
        self.chunks.append(data)
        self.size += len(data)

    def take(self) -> bytes:
        data = b"".join(self.chunks)
        self.chunks.clear()
        return data

    def sent(self, count: int) -> None:
        self.size -= count
        if not self.size and self.empty is not None:
            self.empty.set()
            self.empty = None

    async def wait(self) -> None:
        while self.size:
            if self.empty is None:
                self.empty = trio.Event()
            await self.empty.wait()


class PlainChannel:
    """A TCP connection, read and written without a layer in between: this is the hot path."""

    __slots__ = ("_closed", "_outgoing", "_sock", "_spawn")

    def __init__(self, sock: socket.socket, spawn: Spawn) -> None:
        self._sock = sock
        self._spawn = spawn
        self._outgoing = _Outgoing()
        self._closed = False

    async def receive(self) -> bytes:
        try:
            while self._sock.fileno() >= 0:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    return self._sock.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    continue
            return b""
        except (OSError, trio.ClosedResourceError):
            return b""

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        if self._outgoing.size:
            self._outgoing.add(data)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._give_up()
            return
        if sent < len(data):
            self._outgoing.add(data[sent:])
            self._spawn(self._send_rest)

    async def _send_rest(self) -> None:
        try:
            while self._outgoing.size:
                data = memoryview(self._outgoing.take())
                while data:
                    if self._sock.fileno() < 0:
                        raise trio.ClosedResourceError
                    await trio.lowlevel.wait_writable(self._sock)
                    try:
                        sent = self._sock.send(data)
                    except BlockingIOError:
                        continue
                    data = data[sent:]
                    self._outgoing.sent(sent)
        except (OSError, trio.ClosedResourceError):
            self._give_up()

    def _give_up(self) -> None:
        """Nothing can be sent any more; what the peer has sent may still be read to its end."""
        self._closed = True
        self._outgoing.take()
        self._outgoing.sent(self._outgoing.size)

    @property
    def unsent(self) -> int:
        return self._outgoing.size

    async def flushed(self) -> None:
        await self._outgoing.wait()

    def close(self) -> None:
        self._closed = True
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


class TlsChannel:
    """The same over a TLS stream."""

    __slots__ = ("_closed", "_outgoing", "_sending", "_spawn", "_stream")

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], spawn: Spawn) -> None:
        self._stream = stream
        self._spawn = spawn
        self._outgoing = _Outgoing()
        self._sending = False
        self._closed = False

    async def receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self._outgoing.add(data)
        if not self._sending:
            self._sending = True
            self._spawn(self._send)

    async def _send(self) -> None:
        try:
            while self._outgoing.size:
                data = self._outgoing.take()
                await self._stream.send_all(data)
                self._outgoing.sent(len(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._closed = True
            self._outgoing.take()
            self._outgoing.sent(self._outgoing.size)
        finally:
            self._sending = False

    @property
    def unsent(self) -> int:
        return self._outgoing.size

    async def flushed(self) -> None:
        await self._outgoing.wait()

    def close(self) -> None:
        self._closed = True
        sock = self._stream.transport_stream.socket
        if sock.fileno() >= 0:
            trio.lowlevel.notify_closing(sock)
            sock.close()
