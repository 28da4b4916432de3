"""The bytes of one local connection, plain or TLS.

Writing never blocks and never fails: what the kernel doesn't take at once is kept and sent by a task that lives only as
long as that, and a connection that broke swallows the rest; reading tells of the end. So a reply costs one system call
and no task switch, which is most of what a producer waits for besides the disk.

The event loop owns the socket. It can lend the next bytes to another thread (`lend`), and neither writes nor closes the
socket until it has them back.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import trio

RECEIVE_BYTES = 64 * 1024
"""Asked of a socket at once: from 128 KiB on the C library maps memory for each call, which costs 12 us."""

Spawn = Callable[[Callable[[], Awaitable[None]]], None]
"""Starts a task that may outlive the caller, but not the listener."""


class Channel(Protocol):
    """A connection as the protocol's edge needs it."""

    async def receive(self) -> bytes:
        """The next bytes; empty at the end, however it came."""

    def write(self, data: bytes) -> None:
        """Send, now or soon, in order."""

    def take_back(self, loan: Loan, data: bytes) -> None:
        """End a loan, which no thread uses any more; `data` is written unless the thread has sent what it was lent."""

    @property
    def unsent(self) -> int:
        """Bytes written that the peer's side hasn't taken yet."""

    async def flushed(self) -> None:
        """Wait until all that was written is sent, or can't be."""

    @property
    def unread(self) -> bool:
        """Whether something has come that nobody has read, or that a thread which has the bytes has not answered."""

    def hang_up(self) -> None:
        """Say nothing more, and let the peer know; what it has sent can still be read. From any place of the loop."""

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


class Loan:
    """Bytes that another thread may send, and the socket that stays open for it as long as that.

    Attributes:
        sent: how many the kernel took; None: the thread has not tried.
    """

    __slots__ = ("_data", "_sock", "sent")

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self._sock = sock
        self._data = data
        self.sent: int | None = None

    def use(self) -> None:
        """Send them, from any thread. Never blocks, never fails: the loop finds out what is left to be done."""
        try:
            self.sent = self._sock.send(self._data)
        except OSError:  # full or broken: the loop tries again, and knows what to make of it
            self.sent = 0

    @property
    def rest(self) -> bytes:
        """What was not sent by a thread that has tried."""
        return self._data[self.sent :]

    @property
    def over(self) -> bool:
        """Whether all was sent."""
        return self.sent == len(self._data)


class PlainChannel:
    """A TCP connection, read and written without a layer in between: this is the hot path."""

    __slots__ = ("_closed", "_ended", "_loan", "_outgoing", "_sock", "_spawn")

    def __init__(self, sock: socket.socket, spawn: Spawn) -> None:
        self._sock = sock
        self._spawn = spawn
        self._outgoing = _Outgoing()
        self._closed = False  # nothing is sent any more
        self._ended = False  # nor received
        self._loan: Loan | None = None

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
        if self._outgoing.size or self._lent:
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

    @property
    def socket(self) -> socket.socket:
        """What the bytes go through."""
        return self._sock

    def lend(self, data: bytes) -> Loan | None:
        """Let another thread send the next bytes, from any thread; None when others must leave before them."""
        loan = self._loan
        if self._closed or self._outgoing.size or (loan is not None and not loan.over):
            return None
        self._loan = Loan(self._sock, data)
        return self._loan

    @property
    def _lent(self) -> bool:
        return self._loan is not None and not self._loan.over

    def take_back(self, loan: Loan, data: bytes) -> None:
        if loan is not self._loan:
            return  # it was used up, and another one may have been given since
        self._loan = None
        if self._ended:
            self._sock.close()
            return
        rest = data if loan.sent is None else loan.rest
        if self._outgoing.size:
            rest += self._outgoing.take()
            self._outgoing.sent(self._outgoing.size)
        if rest:
            self.write(rest)

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
        except BaseException as error:
            self._give_up()
            if not isinstance(error, OSError | trio.ClosedResourceError):
                raise

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

    @property
    def unread(self) -> bool:
        return self._lent or _has_come(self._sock)

    def hang_up(self) -> None:
        self._closed = True
        _end_what_we_say(self._sock)

    def close(self) -> None:
        self._closed = self._ended = True
        if self._sock.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self._sock)
        if not self._lent:
            self._sock.close()
            return
        with suppress(OSError):  # the peer has left already
            self._sock.shutdown(socket.SHUT_RDWR)  # the descriptor must stay: its number may be another's in a moment


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

    def take_back(self, loan: Loan, data: bytes) -> None:
        raise NotImplementedError("nothing is lent")

    async def _send(self) -> None:
        try:
            while self._outgoing.size:
                data = self._outgoing.take()
                await self._stream.send_all(data)
                self._outgoing.sent(len(data))
        except BaseException as error:
            self._closed = True
            self._outgoing.take()
            self._outgoing.sent(self._outgoing.size)
            if not isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
                raise
        finally:
            self._sending = False

    @property
    def unsent(self) -> int:
        return self._outgoing.size

    async def flushed(self) -> None:
        await self._outgoing.wait()

    @property
    def unread(self) -> bool:
        return _has_come(self._stream.transport_stream.socket)

    def hang_up(self) -> None:
        self._closed = True
        _end_what_we_say(self._stream.transport_stream.socket)

    def close(self) -> None:
        self._closed = True
        sock = self._stream.transport_stream.socket
        if sock.fileno() >= 0:
            trio.lowlevel.notify_closing(sock)
            sock.close()


class _Socket(Protocol):
    """The standard library's, or trio's."""

    def fileno(self) -> int: ...
    def shutdown(self, how: int, /) -> None: ...


def _has_come(sock: _Socket) -> bool:
    """Whether bytes wait to be read."""
    poll = select.poll()
    if sock.fileno() < 0:
        return False
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _end_what_we_say(sock: _Socket) -> None:
    with suppress(OSError):  # it has ended already
        sock.shutdown(socket.SHUT_WR)
