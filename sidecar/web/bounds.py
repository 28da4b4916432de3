"""How much a client may send, and how slowly: the limits of the HTTP edge, and the reading of bodies within them."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio
from starlette.types import Message, Receive, Scope, Send

from sidecar.budget import Budget, NoRoom, Share
from sidecar.web.problems import Problem

MAX_JOBS: Final = 10_000  # in one request: what upstream can take within the 4 s of an answer, as batches in flight
MAX_BODY: Final = 32 * 1024 * 1024  # bytes of one body, as one line of the Faktory Work Protocol
BODY_SECONDS: Final = 30.0  # for a body to arrive whole: 32 MiB at 9 Mbit/s
MAX_HEAD: Final = 16 * 1024  # bytes of request line and header fields: four times what browsers send
IDLE_SECONDS: Final = 30.0  # between two requests of a connection, and for the head of one to arrive
WRITE_SECONDS: Final = 30.0  # for a client to take what it was sent
MAX_CONNECTIONS: Final = 500  # of all listeners: half of the 1,024 descriptors that a process usually may have
LINGER_SECONDS: Final = 2.0  # reading on after an early answer, so that a client that is still sending sees it
GRACE_SECONDS: Final = (
    5.0  # for answers that are being made when the server stops: the 4 s of an acknowledgement, and one
)


class Body:
    """A request's body, as long as it is needed.

    Args:
        data: all of it.
        share: what it takes of the budget.
    """

    def __init__(self, data: bytes, share: Share) -> None:
        self._data = data
        self._share = share

    def take(self) -> bytes:
        """The bytes, once: who has done with them need not hold them."""
        data, self._data = self._data, b""
        return data

    def release(self) -> None:
        """The request has been answered."""
        self.take()
        self._share.close()


class Bodies:
    """Reads request bodies.

    Args:
        budget: that they share with all other clients.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    async def read(self, receive: Receive, declared: int | None) -> Body:
        """The whole body of a request, to be released when the request has been answered.

        Args:
            declared: the request's `Content-Length`, None when it has none.

        Raises:
            Problem: 413 too large, 408 too slow, 503 too many at once.
            Gone: the client closed the connection.
        """
        if declared is not None and declared > MAX_BODY:
            raise too_large()
        share = self._budget.share()
        try:
            with trio.fail_after(BODY_SECONDS):
                return Body(await self._whole(receive, share), share)
        except BaseException as error:
            share.close()
            if isinstance(error, trio.TooSlowError):
                raise Problem(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
            if isinstance(error, NoRoom):
                raise Problem(503, f"Not enqueued: {error}.", headers={"retry-after": "1"}) from None
            raise

    async def _whole(self, receive: Receive, share: Share) -> bytes:
        data = bytearray()
        more = True
        while more:
            message = await (share.more(receive) if data else receive())
            if message["type"] != "http.request":
                raise Gone
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            share.grow(len(chunk))
            if len(data) + len(chunk) > MAX_BODY:
                raise too_large()
            if not data and not more:
                return chunk
            data += chunk
        return bytes(data)


class Gone(Exception):
    """The client closed its connection before its request was complete."""


def too_large() -> Problem:
    """413, naming the bound."""
    return Problem(413, f"A body may have at most {MAX_BODY} bytes (32 MiB); send several requests.")


def too_many(count: int) -> Problem:
    """413, naming the bound on jobs."""
    return Problem(413, f"A request may have at most {MAX_JOBS} jobs, this one has {count}; send several requests.")


def replay(body: Body, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, whole, and then what follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body.take(), "more_body": False}

    return again


async def answer_early(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer before the body has been read, and end the connection.

    A client that is still sending would meet a reset connection and never see the answer, so its bytes are read and
    thrown away for `LINGER_SECONDS`. They must also be taken while the answer ends: Hypercorn hands the end of a
    connection over behind them.
    """
    response = problem.response()
    headers = [*response.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with trio.move_on_after(LINGER_SECONDS):
        await _swallow(receive, to_disconnect=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(_swallow, receive, to_disconnect=True))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        nursery.cancel_scope.cancel()


async def _swallow(receive: Receive, *, to_disconnect: bool) -> None:
    """Read and throw away until the body is complete, or further until the connection ends."""
    while True:
        message = await receive()
        if message["type"] != "http.request" or not (to_disconnect or message.get("more_body", False)):
            return
