"""What every request passes on its way in: the guard, the bounds, and the one place that catches errors.

One ASGI callable instead of a stack of middleware, and no FastAPI between it and the routes that take jobs: those are
called from a table. (FastAPI's and Starlette's own way costs 80-130 µs a request, a fifth of what the server takes.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sidecar.logs import defect, get_logger
from sidecar.web.bounds import Bodies, Body, Gone, answer_early, replay
from sidecar.web.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from sidecar.web.guard import Guard

Endpoint = Callable[[Request], Awaitable[Response]]

_log = get_logger()
_IDENTITY: Final = (b"", b"identity")


class Edge:
    """The way into the HTTP application, for one listener.

    Args:
        guard: who may speak.
        bodies: the bodies of all listeners, within their bound.
        direct: endpoints that are called without the application's routing, by method and path.
        application: everything else.
        open_paths: need no token where there is one.
    """

    def __init__(
        self,
        *,
        guard: Guard,
        bodies: Bodies,
        direct: Mapping[tuple[str, str], Endpoint],
        application: ASGIApp,
        open_paths: Container[str] = (),
    ) -> None:
        self._guard = guard
        self._bodies = bodies
        self._direct = direct
        self._application = application
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; WebSockets are refused."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        try:
            await self._admit(scope, receive, send)
        except Problem as problem:
            await answer_early(problem, scope, receive, send)
        except Gone:
            _log.debug("http_client_gone", message="An HTTP client left in the middle of its request")
        except Exception as error:
            _log_failure(scope, error)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and read its body, then have it answered.

        Raises:
            Problem: the request is turned away before its body was read.
        """
        headers: dict[bytes, bytes] = dict(scope["headers"])
        problem = self._guard.check(headers, open_to_all=scope["path"] in self._open_paths)
        if problem is not None:
            raise problem
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            await self._answer(scope, receive, send, None)
            return
        if headers.get(b"content-encoding", b"") not in _IDENTITY:
            raise Problem(415, "Content-Encoding is not supported: send the JSON as it is.")
        body = await self._bodies.read(receive, int(length) if length is not None else None)
        try:
            await self._answer(scope, receive, send, body)
        finally:
            body.release()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: Body | None) -> None:
        endpoint = self._direct.get((scope["method"], scope["path"]))
        if endpoint is None:
            receive = receive if body is None else replay(body, receive)
            # A HEAD is answered as a GET whose body the server leaves out (it looks at its own scope).
            inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._application(inner, receive, send)
            return
        request = _Request(scope, receive, body)
        try:
            response = await endpoint(request)
        except Problem as problem:
            response = problem.response()
        except Exception as error:
            _log_failure(scope, error)
            response = await on_error(request, error)
        await response(scope, receive, send)


class _Request(Request):
    """A request whose body was read."""

    def __init__(self, scope: Scope, receive: Receive, body: Body | None) -> None:
        super().__init__(scope, receive)
        self._whole = body

    async def body(self) -> bytes:
        """All of it, once."""
        return self._whole.take() if self._whole is not None else b""


def _log_failure(scope: Scope, error: Exception) -> None:
    """Say what only a mistake of ours can be."""
    defect("HTTP request", error, f"{scope['method']} {scope['path']} has no answer")


async def on_problem(_request: Request, error: Exception) -> Response:
    """The answer for a `Problem` that a route within the application raised."""
    assert isinstance(error, Problem)
    return error.response()


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Problem documents for what the framework itself turns away; `OPTIONS` gets the methods of the path instead."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _allowed(headers)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": allowed})
        return Problem(405, f"This path takes {allowed}.", headers={"allow": allowed}).response()
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Problem(404, "There is nothing at this path; /docs lists what there is.").response()
    return Problem(error.status_code, str(error.detail), headers=headers).response()


async def on_error(_request: Request, _error: Exception) -> Response:
    """The answer for a mistake of ours; the edge logs it."""
    return Problem(500, "The sidecar made a mistake; its log says which.").response()


def _allowed(headers: Mapping[str, str]) -> str:
    """The methods of a path that the framework named, and those that work without being named."""
    named = next((value for name, value in headers.items() if name.lower() == "allow"), "")
    methods = {method.strip() for method in named.split(",")} - {""}
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods | {"OPTIONS"}))
