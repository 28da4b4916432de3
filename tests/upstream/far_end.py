"""Connections whose far end is in the test's hands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio
import trio.testing

from sidecar.protocol.handshake import Greeting
from sidecar.protocol.lines import LineReader
from sidecar.protocol.replies import ReplyReader, bulk
from sidecar.upstream.dial import Connected, DialError

INFO_REPLY = bulk(b'{"server":{"faktory_version":"1.10.0"}}')


class FarEnd:
    """Upstream's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._lines = LineReader()
        self._received: deque[bytes] = deque()

    async def line(self) -> bytes:
        """The next command, without its end; empty when the other side has closed."""
        while not self._received:
            data = await self.stream.receive_some(65536)
            if not data:
                return b""
            self._received.extend(self._lines.feed(bytes(data)))
        return self._received.popleft()

    async def say(self, data: bytes) -> None:
        """Send these bytes."""
        await self.stream.send_all(data)

    async def end(self) -> None:
        """Close the connection."""
        await self.stream.aclose()


def connection(*early: bytes) -> tuple[Connected, FarEnd]:
    """A connection after its handshake, and its far end; `early` came with the handshake's last reply."""
    ours, theirs = trio.testing.memory_stream_pair()
    return Connected(ours, Greeting(2), ReplyReader(), list(early)), FarEnd(theirs)


class ScriptedDialer:
    """Dials as the test says: each of `answers` makes one dial's outcome, then all are refused."""

    password: str | None = None

    def __init__(self) -> None:
        self.answers: deque[Callable[[], Connected]] = deque()
        self.times: list[float] = []
        self.takes = 0.0

    def accept(self, *early: bytes) -> FarEnd:
        """Let the next dial succeed."""
        connected, far = connection(*early)
        self.answers.append(lambda: connected)
        return far

    async def dial(self) -> Connected:
        """As `Dialer.dial`."""
        self.times.append(trio.current_time())
        await trio.sleep(self.takes)
        if not self.answers:
            raise DialError("connect", "connection refused")
        return self.answers.popleft()()
