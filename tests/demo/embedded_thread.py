"""An embedded Faktory on an event loop of its own, for tests that speak to it with blocking clients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from sidecar.demo.embedded import EmbeddedFaktory
from tests.real.raw_client import RawClient


class ThreadedFaktory:
    """Looks like `tests.real.faktory_server.RealFaktory` to a test that only speaks with it and looks into it."""

    def __init__(self, server: EmbeddedFaktory, token: trio.lowlevel.TrioToken, password: str | None) -> None:
        self._server = server
        self._token = token
        self.password = password
        self.port = server.port

    def client(self, **options: Any) -> RawClient:
        """A new raw connection with the right password."""
        return RawClient(self.port, self.password, **options)

    def info(self) -> dict[str, Any]:
        """The server's INFO."""
        with self.client() as client:
            return client.info()

    def stored(self, queue: str = "default") -> list[dict[str, Any]]:
        """All jobs that wait in a queue, the oldest first."""
        return trio.from_thread.run_sync(self._server.stored, queue, trio_token=self._token)

    def stored_sorted(self, name: str = "scheduled") -> list[dict[str, Any]]:
        """All jobs of a set, the earliest first."""
        return trio.from_thread.run_sync(self._server.stored_sorted, name, trio_token=self._token)

    def signal_worker(self, wid: str, wish: str) -> None:
        """What the Web UI's buttons do."""
        trio.from_thread.run_sync(self._server.signal_worker, wid, wish, trio_token=self._token)


@contextmanager
def in_thread(server: EmbeddedFaktory) -> Iterator[trio.lowlevel.TrioToken]:
    """Runs this embedded Faktory on an event loop of its own until the block ends."""
    ready = threading.Event()
    stop = trio.Event()
    token: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            token.append(trio.lowlevel.current_trio_token())
            ready.set()
            await stop.wait()
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(10)
    try:
        yield token[0]
    finally:
        trio.from_thread.run_sync(stop.set, trio_token=token[0])
        thread.join(10)
    assert not thread.is_alive()


@contextmanager
def embedded_in_thread(*, password: str | None = None) -> Iterator[ThreadedFaktory]:
    """Runs an embedded Faktory until the block ends."""
    server = EmbeddedFaktory(password=password or "")
    with in_thread(server) as token:
        yield ThreadedFaktory(server, token, password)
