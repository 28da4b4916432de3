"""A whole sidecar in the test's own event loop, and a client that shows every byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from sidecar.app.wiring import Sidecar, open_journal
from sidecar.config import Ack, load
from sidecar.demo.embedded import EmbeddedFaktory
from sidecar.producers import Listener
from sidecar.producers.express import Express
from sidecar.producers.shortcut import Shortcut
from sidecar.protocol.replies import ReplyReader

OK = b"+OK\r\n"
HELLO = b'HELLO {"v":2}\r\n'
REFUSED = "tcp://127.0.0.1:1"
"""An upstream that refuses connections: nothing listens on that port."""
PATIENCE = 10.0
"""Seconds until a test gives up waiting for a reply."""


@dataclass
class Running:
    """A sidecar that runs; `inner` are its parts."""

    inner: Sidecar
    port: int

    async def connect(self, hello: bytes | None = HELLO) -> Client:
        """A new connection, after its handshake unless `hello` is None."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port))
        if hello is not None:
            assert (await client.reply()).startswith(b"+HI {")
            assert await client.call(hello) == b"+OK\r\n"
        return client

    async def until(self, look: Callable[[Sidecar], object]) -> None:
        """Wait until something is true of the sidecar."""
        with trio.fail_after(PATIENCE):
            while not look(self.inner):  # noqa: ASYNC110 - any state of the sidecar, of which no event tells
                await trio.sleep(0.005)


class Client:
    """One connection of a client."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._reader = ReplyReader()
        self._replies: list[bytes] = []

    async def send(self, data: bytes) -> None:
        """Send these bytes."""
        await self.stream.send_all(data)

    async def reply(self) -> bytes:
        """The next reply, raw; empty when the connection has ended."""
        with trio.fail_after(PATIENCE):
            while not self._replies:
                try:
                    data = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:
                    return b""
                if not data:
                    return b""
                self._replies += self._reader.feed(bytes(data))
        return self._replies.pop(0)

    async def call(self, line: bytes) -> bytes:
        """Send a command and return its reply."""
        await self.send(line if line.endswith(b"\n") else line + b"\r\n")
        return await self.reply()

    async def half_close(self) -> None:
        """End what we say; the other direction stays open."""
        assert isinstance(self.stream, trio.SocketStream)
        await self.stream.send_eof()


@asynccontextmanager
async def sidecar(upstream: str, directory: Path, *, link: bool = True, **settings: Any) -> AsyncIterator[Running]:
    """Run a sidecar until the block ends.

    Args:
        directory: for its journal.
        link: whether it tries to reach upstream; else the link stays down.
        settings: environment variables; `SIDECAR_ACK` is `memory` by default.
    """
    environment = {
        "SIDECAR_UPSTREAM": upstream,
        "SIDECAR_LISTEN": "127.0.0.1:0",
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_ACK": "memory",
        "SIDECAR_JOURNAL_DIR": str(directory / "journal"),
    }
    loaded = load(environment | {name: str(value) for name, value in settings.items()}, {})
    configured = loaded.settings
    journal = await open_journal(configured) if configured.mode is Ack.DISK else None
    async with Sidecar.running(configured, journal) as parts, trio.open_nursery() as edges:
        listener = Listener(configured.listen, parts.services(), tls=None)
        edges.start_soon(listener.run)
        if link:
            parts.connect()
        yield Running(parts, int(listener.addresses[0].rpartition(":")[2]))
        edges.cancel_scope.cancel()


@asynccontextmanager
async def faktory(**options: Any) -> AsyncIterator[EmbeddedFaktory]:
    """Run an embedded Faktory until the block ends."""
    server = EmbeddedFaktory(**options)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


def push(jid: str, extra: str = "") -> bytes:
    """The line of a PUSH; `extra` are further members, with a comma before each."""
    return b'PUSH {"jid":"%s","jobtype":"T","args":[]%s}\r\n' % (jid.encode(), extra.encode())


def lent(inner: Sidecar) -> int:
    """How many connections are lent."""
    if isinstance(inner.desk, Express):
        return inner.desk.journal.inlet.sources
    return inner.desk.sources if isinstance(inner.desk, Shortcut) else 0


async def rider(running: Running, name: str) -> Client:
    """A client whose connection is lent."""
    before = lent(running.inner)
    client = await running.connect()
    assert await client.call(push(f"{name}-first")) == OK
    await running.until(lambda inner: lent(inner) > before)
    return client
