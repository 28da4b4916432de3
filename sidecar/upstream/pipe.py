"""A connection on which commands are written without waiting, and replies come back in their order.

The invariant: the n-th reply belongs to the n-th command. Faktory runs the commands of a connection one after the other
and answers each once, so nothing but order is needed to match them. Each command has exactly one outcome: its reply,
byte for byte, or `None` when the connection was lost before it: then the command is *in doubt*.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from sidecar.logs import defect, described
from sidecar.protocol.replies import ProtocolError
from sidecar.supervision import guarded
from sidecar.upstream.dial import RECEIVE_BYTES, Connected

OnReply = Callable[[bytes | None], None]
"""Called once with the raw reply, or with None when the connection was lost before it."""
Command = bytes | list[bytes]
"""A command, its line end included; in pieces where it is large, so that it isn't copied to be sent."""

SEND_CHUNK = 256 * 1024
"""Bytes of one send: large enough to cost few calls, small enough to be copied twice without notice."""


REPLY_TIMEOUT = 15.0
"""Seconds without any reply while one is owed: three times Faktory's own limit for a command."""
SLOWEST_LINK = 32 * 1024
"""Bytes a second that a link must carry at least: on a slower one a large job would be given up and sent for ever."""


class PipeLost(Exception):
    """The connection ended. Args: the reason in a few words, for the log."""


class Pipe:
    """Commands out, replies in, in order.

    Args:
        connected: a connection after its handshake.
        unasked: called with a reply that no command waits for (`too many connections` comes so).
        sent: called when bytes have left.
    """

    def __init__(
        self,
        connected: Connected,
        *,
        unasked: Callable[[bytes], None] | None = None,
        sent: Callable[[], None] | None = None,
    ) -> None:
        self._stream = connected.stream
        self._reader = connected.replies
        self._early = connected.early
        self._unasked = unasked
        self._sent = sent
        self._owed: deque[tuple[OnReply, int]] = deque()  # with the size of the command
        self._outgoing: deque[bytes] = deque()
        self._something_to_send = trio.Event()
        self._lost: str | None = None
        self.unsent = 0
        """Bytes that wait to be sent."""
        self.owed_since = 0.0
        """The later of when the oldest unanswered command was sent and when the last reply came (trio's clock)."""

    @property
    def lost(self) -> str | None:
        """Why the connection ended, None while it stands."""
        return self._lost

    @property
    def owed(self) -> int:
        """Commands without a reply yet."""
        return len(self._owed)

    @property
    def patience(self) -> float:
        """Seconds that the oldest unanswered command may take since `owed_since`: a large one takes long to send."""
        return REPLY_TIMEOUT + (self._owed[0][1] / SLOWEST_LINK if self._owed else 0.0)

    async def silent_for(self) -> float:
        """Seconds without a reply, or without a command where none is owed. What has arrived by now counts as read."""
        await trio.lowlevel.checkpoint()  # who waits to be read has its turn: timers and input are due together
        return trio.current_time() - self.owed_since

    def send(self, command: Command, on_reply: OnReply) -> None:
        """Queue a command. Never blocks; on a lost pipe `on_reply(None)` comes at once."""
        if self._lost is not None:
            on_reply(None)
            return
        if not self._owed:
            self.owed_since = trio.current_time()
        pieces = [command] if isinstance(command, bytes) else command
        self._owed.append((on_reply, sum(map(len, pieces))))
        self.write(*pieces)

    def write(self, *pieces: bytes) -> None:
        """Queue bytes that get no reply (`END`)."""
        self._outgoing.extend(pieces)
        self.unsent += sum(map(len, pieces))
        self._something_to_send.set()

    async def run(self) -> None:
        """Carry bytes until the connection ends; then every command that is owed a reply is told None.

        Raises:
            PipeLost: always and nothing else, unless cancelled.
        """
        reason = "closed"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_loop)
                await self._receive_loop()
        except* PipeLost as group:
            reason = str(_first(group))
        except* Exception as group:
            defect("connection to Faktory", group, "it is given up")
            reason = f"a defect, {described(group)}"
        finally:
            await self._end(reason)
        raise PipeLost(reason)

    async def _send_loop(self) -> None:
        while True:
            while self._outgoing:
                chunk = [self._outgoing.popleft()]
                size = len(chunk[0])
                while self._outgoing and size + len(self._outgoing[0]) <= SEND_CHUNK:
                    chunk.append(self._outgoing.popleft())
                    size += len(chunk[-1])
                data = memoryview(b"".join(chunk))
                del chunk
                try:
                    for start in range(0, size, SEND_CHUNK):
                        await self._stream.send_all(data[start : start + SEND_CHUNK])
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise PipeLost(_words(error)) from error
                del data
                self.unsent -= size
                if self._sent is not None:
                    self._sent()
            self._something_to_send = trio.Event()
            await self._something_to_send.wait()

    async def _receive_loop(self) -> None:
        self._deliver(self._early)
        while True:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    raise PipeLost("closed by upstream")
                replies = self._reader.feed(bytes(data))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise PipeLost(_words(error)) from error
            except ProtocolError as error:
                raise PipeLost(f"upstream broke the protocol: {error}") from error
            self._deliver(replies)

    def _deliver(self, replies: list[bytes]) -> None:
        if replies:
            self.owed_since = trio.current_time()
        for reply in replies:
            if self._owed:
                guarded("reply", self._owed.popleft()[0], reply)
            elif self._unasked is not None:
                self._unasked(reply)
            else:
                raise PipeLost(f"a reply that nobody asked for: {reply[:200]!r}")

    async def _end(self, reason: str) -> None:
        self._lost = reason
        while self._owed:
            guarded("reply", self._owed.popleft()[0], None)
        await trio.aclose_forcefully(self._stream)


def _first(group: BaseExceptionGroup[PipeLost]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _words(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return "connection lost"
