"""How much a client may send, and how slowly: the limits of the HTTP edge, and the reading of bodies within them."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio
from starlette.types import Message, Receive, Scope, Send

from sidecar.web.problems import Problem

MAX_JOBS: Final = 10_000  # in one request: what upstream can take within the 4 s of an answer, as batches in flight
MAX_BODY: Final = 32 * 1024 * 1024  # bytes of one body, as one line of the Faktory Work Protocol
BODY_SECONDS: Final = 30.0  # for a body to arrive whole: 32 MiB at 9 Mbit/s
MAX_BODIES: Final = 128 * 1024 * 1024  # bytes of all bodies in memory: four of the largest
MAX_HEAD: Final = 16 * 1024  # bytes of request line and header fields: four times what browsers send
IDLE_SECONDS: Final = 30.0  # between two requests of a connection, and for the head of one to arrive
WRITE_SECONDS: Final = 30.0  # for a client to take what it was sent
MAX_CONNECTIONS: Final = 500  # of all listeners: half of the 1,024 descriptors that a process usually may have
LINGER_SECONDS: Final = 2.0  # reading on after an early answer, so that a client that is still sending sees it
GRACE_SECONDS: Final = (
    5.0  # for answers that are being made when the server stops: the 4 s of an acknowledgement, and one
)


class Bodies:
    """The request bodies that are in memory, all together within `MAX_BODIES`."""

    def __init__(self) -> None:
        self.held = 0

    async def read(self, receive: Receive, declared: int | None) -> bytes:
        """The whole body of a request; `release` its length when the request has been answered.

        Args:
            declared: the request's `Content-Length`, None when it has none.

        Raises:
            Problem: 413 too large, 408 too slow, 503 too many at once.
            Gone: the client closed the connection.
        """
        if declared is not None and declared > MAX_BODY:
            raise too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            with trio.fail_after(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Gone
                    chunk: bytes = message.get("body", b"")
                    more = message.get("more_body", False)
                    size += len(chunk)
                    self.held += len(chunk)
                    self._check(size)
                    chunks.append(chunk)
        except trio.TooSlowError:
            self.held -= size
            raise Problem(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
        except BaseException:
            self.held -= size
            raise
        return b"".join(chunks)

    def release(self, body: bytes) -> None:
        """The body is not needed any more."""
        self.held -= len(body)

    def _check(self, size: int) -> None:
        if size > MAX_BODY:
            raise too_large()
        if self.held > MAX_BODIES:
            detail = f"More than {MAX_BODIES} bytes of request bodies are being received at once."
            raise Problem(503, detail, headers={"retry-after": "1"})


class Gone(Exception):
    """The client closed its connection before its request was complete."""


def too_large() -> Problem:
    """413, naming the bound."""
    return Problem(413, f"A body may have at most {MAX_BODY} bytes (32 MiB); send several requests.")


def too_many(count: int) -> Problem:
    """413, naming the bound on jobs."""
    return Problem(413, f"A request may have at most {MAX_JOBS} jobs, this one has {count}; send several requests.")


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, whole, and then what follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

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
