"""An answer without an end, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


class EventStream(Response):
    """Sends what a generator yields, until that or the client ends it.

    Starlette's own streaming answer is cancelled by the very end of itself, which Hypercorn reports like a client that
    left, and then the connection stays open with nobody to close it.

    Args:
        events: whole events, encoded.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__()
        self._events = events

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        ended = False
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async with trio.open_nursery() as nursery:

            async def until_it_leaves() -> None:
                while (await receive())["type"] != "http.disconnect":
                    continue
                if not ended:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(until_it_leaves)
            async with aclosing(self._events) as events:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            ended = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()
