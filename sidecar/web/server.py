"""Listens, and speaks HTTP/1.1 with Hypercorn's trio worker.

The worker's connection and protocol are used as they are, with an accept loop of our own around them: an exception in a
connection ends that connection and not the process, connections are counted, writing to a client that doesn't read is
bounded, and the server stops gracefully when it is cancelled. HTTP/2 is not offered: nobody needs it on loopback.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from sidecar.config import Bind
from sidecar.listening import open_listeners
from sidecar.logs import defect
from sidecar.supervision import supervised
from sidecar.web.bounds import GRACE_SECONDS, IDLE_SECONDS, MAX_CONNECTIONS, MAX_HEAD, WRITE_SECONDS
from sidecar.web.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_REQUESTS: Final = 10**9  # of one connection: no bound (Hypercorn's is 1,000)


class Listener:
    """One listening socket and what answers on it.

    Args:
        sock: bound and listening.
        application: answers its requests.
    """

    def __init__(self, sock: socket.socket, application: ASGIApp) -> None:
        self.socket = sock
        self.application = application

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it is bound to."""
        host, port, *_ = self.socket.getsockname()
        return host, port


def bind(binds: Sequence[Bind], application: Callable[[Bind], ASGIApp], *, setting: str) -> list[Listener]:
    """Bind every address; nothing is accepted yet.

    `localhost` is both loopbacks, on one port, `::1` skipped where the machine has none.

    Args:
        binds: where to listen.
        application: what answers there.
        setting: the name of the setting, for the message.

    Raises:
        StartError: an address can't be bound.
    """
    return [Listener(sock, application(each)) for sock, each in open_listeners(binds, setting)]


async def serve(
    listeners: Sequence[Listener], *, task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests until cancelled, then let the answers that are being made finish, for `GRACE_SECONDS`.

    Args:
        task_status: told the addresses that are listening.
    """
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_Worker().run, listeners, stop)
        task_status.started([listener.address for listener in listeners])
        try:
            await trio.sleep_forever()
        finally:
            stop.set()


class _Worker:
    """The connections of a server, of all its listeners together."""

    def __init__(self) -> None:
        self._config = Config()
        self._config.errorlog = None
        self._config.accesslog = None
        self._config.include_server_header = False
        self._config.h11_max_incomplete_size = MAX_HEAD
        self._config.keep_alive_timeout = IDLE_SECONDS
        self._config.keep_alive_max_requests = MAX_REQUESTS
        self._context = WorkerContext(None)
        self._clients: set[_Client] = set()
        self._empty = trio.Event()

    async def run(self, listeners: Sequence[Listener], stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept until `stop`; runs on when its surroundings are cancelled, and ends itself."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(supervised, "accept", partial(self._accept, listener, connections))
                    task_status.started()
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    listener.socket.close()
                await self._context.terminated.set()  # ends the idle connections
                await self._finish()
                connections.cancel_scope.cancel()

    async def _accept(self, listener: Listener, connections: trio.Nursery) -> None:
        # a socket of its own: trio closes it when its loop ends, by a defect too
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener.socket.dup()))

        async def handle(stream: trio.SocketStream) -> None:
            await self._connection(listener.application, stream)

        await trio.serve_listeners(handle, [accepting], handler_nursery=connections)

    async def _finish(self) -> None:
        """Wait for the connections to end, then break those that didn't (a client that doesn't read its answer)."""
        with trio.move_on_after(GRACE_SECONDS):
            while self._clients:
                self._empty = trio.Event()
                await self._empty.wait()
        for client in list(self._clients):
            client.abort()

    async def _connection(self, application: ASGIApp, stream: trio.SocketStream) -> None:
        client = _Client(stream)
        if len(self._clients) >= MAX_CONNECTIONS:
            await client.turn_away()
            return
        self._clients.add(client)
        try:
            await _Connection(application, self._config, self._context, client).run()
        except* Exception as group:
            defect("HTTP connection", group, "it is closed")
        finally:
            client.abort()
            self._clients.discard(client)
            if not self._clients:
                self._empty.set()


class _Client:
    """A client's stream as Hypercorn uses it; sending is bounded by `WRITE_SECONDS`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.broken = False

    async def receive_some(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes) -> None:
        """Send, or break the connection when the client takes too long."""
        try:
            with trio.fail_after(WRITE_SECONDS):
                await self._stream.send_all(data)
        except trio.TooSlowError:
            self.broken = True
            self.abort()
            raise trio.BrokenResourceError("the client doesn't read") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broken = True
            raise

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        """Close at once; whoever reads or writes gets `ClosedResourceError`."""
        self.socket.close()

    async def turn_away(self) -> None:
        """Tell a client that there are too many connections."""
        problem = Problem(503, f"There are {MAX_CONNECTIONS} connections already.", headers={"retry-after": "5"})
        body = problem.body()
        head = "".join(
            f"{line}\r\n"
            for line in (
                "HTTP/1.1 503 Service Unavailable",
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                *(f"{name}: {value}" for name, value in problem.headers.items()),
                "connection: close",
                "",
            )
        )
        with suppress(trio.BrokenResourceError):  # it has given up by itself
            await self.send_all(head.encode() + body)
        self.abort()


class _Connection(TCPServer):
    """Hypercorn's connection, without TLS and with our protocol."""

    def __init__(self, application: ASGIApp, config: Config, context: WorkerContext, client: _Client) -> None:
        wrapped = ASGIWrapper(application)  # type: ignore[arg-type]  # Starlette's and Hypercorn's types differ by name
        self._client = client
        self._reading = True
        self._under_way = trio.CancelScope()
        super().__init__(wrapped, config, context, {}, client)  # type: ignore[arg-type]  # a stream by duck typing

    async def run(self) -> None:
        """Speak until either side ends the connection."""
        client_address = _address(self.stream.socket.getpeername)
        if client_address is None:
            return  # it left before it was accepted
        server_address = _address(self.stream.socket.getsockname)
        with self._under_way:
            await self._speak(client_address, server_address)

    async def _speak(self, client_address: tuple[str, int], server_address: tuple[str, int] | None) -> None:
        async with TaskGroup() as task_group:
            self._task_group = task_group
            self.protocol: Any = _Protocol(
                self.app,
                self.config,
                self.context,
                task_group,
                ConnectionState({}),
                False,
                client_address,
                server_address,
                self.protocol_send,
            )
            await self.idle_task.restart(task_group, self._idle_timeout)
            await self._read_data()
            self._reading = False
            await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol wants sent; a connection that can't be written to ends with all it has under way.

        Hypercorn would go on answering the requests that such a client has sent ahead, and start its idle timer again
        for a connection that nobody reads any more.
        """
        if isinstance(event, Updated) and not self._reading:
            return
        await super().protocol_send(event)
        if self._client.broken:
            self._under_way.cancel()


class _Protocol(H11Protocol):
    """Hypercorn's HTTP/1.1, without upgrade to HTTP/2 and with problem documents for what h11 turns away."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1, whatever the client would rather speak."""

    async def _send_error_response(self, status_code: int) -> None:
        detail = {
            431: f"The head of a request may have at most {MAX_HEAD} bytes.",
            501: "This transfer coding is not supported.",
        }.get(status_code, "This is not HTTP/1.1.")
        body = Problem(status_code, detail).body()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


def _address(ask: Callable[[], Any]) -> tuple[str, int] | None:
    try:
        host, port, *_ = ask()
    except OSError:
        return None
    return host, port
