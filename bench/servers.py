"""Small servers that rows need, each a process of its own: `python -m bench.servers KIND …`.

`bare DIRECTORY` is the least that a durable acknowledgement can cost: receive, append, wait for the disk, send.
`faktory` is the embedded Faktory. `wan HOST PORT RTT LISTEN` is the simulated WAN before a server. `http` answers
every request with a constant, on the server that the sidecar's HTTP edge runs on. `count HOST PORT` forwards and
counts bytes. Each writes its port to stdout, and ends with its stdin.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import trio

from bench.load import sync_data
from sidecar.demo.embedded import EmbeddedFaktory
from sidecar.demo.wan import SimulatedWan

_CHUNK = 64 * 1024  # bytes asked of a socket at once


def bare(directory: str) -> None:
    """A loop of recv, append, fdatasync, send, for one client at a time, with Faktory's handshake."""
    file = os.open(Path(directory) / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    listener = socket.create_server(("127.0.0.1", 0))
    _say_port(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(b'+HI {"v":2}\r\n')
            connection.recv(_CHUNK)
            connection.sendall(b"+OK\r\n")
            while data := connection.recv(_CHUNK):
                if data.startswith(b"END"):
                    break
                os.write(file, data)
                sync_data(file)
                connection.sendall(b"+OK\r\n")
            os.ftruncate(file, 0)


async def embedded() -> None:
    """The embedded Faktory."""
    async with trio.open_nursery() as nursery:
        _say_port(await nursery.start(EmbeddedFaktory().run))


async def wan(host: str, port: int, rtt: float, listen: int) -> None:
    """A server that is `rtt` seconds away, on a port of its own (0: any)."""
    async with trio.open_nursery() as nursery:
        simulated = SimulatedWan(partial(trio.open_tcp_stream, host, port), rtt=rtt)
        _say_port(await nursery.start(partial(simulated.run, port=listen)))


async def http() -> None:
    """A constant answer to every POST, by FastAPI on the sidecar's own HTTP server."""
    from fastapi import FastAPI, Request, Response
    from fastapi.routing import APIRoute

    from sidecar.config import Bind
    from sidecar.web.server import bind, serve

    class LeanRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
            return endpoint

    async def answer(request: Request) -> Response:
        await request.body()
        return Response(b'{"job_id":"000000000000000000000000","message":"constant"}', media_type="application/json")

    application = FastAPI(openapi_url=None)
    application.router.route_class = LeanRoute
    application.add_api_route("/jobs", answer, methods=["POST"])
    listeners = bind([Bind("127.0.0.1", 0)], lambda _: application, setting="the constant server")
    _say_port(listeners[0].address[1])
    await serve(listeners)


class _Counter:
    """A forwarder of plain threads that counts what it carries."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.up = 0  # bytes towards the server
        self.down = 0

    def run(self, listener: socket.socket) -> None:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(self._target)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(_CHUNK):
                sink.sendall(data)
                if up:
                    self.up += len(data)
                else:
                    self.down += len(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


def count(host: str, port: int) -> None:
    """Forwards, and tells both counts for each line on stdin."""
    counter = _Counter(host, port)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=counter.run, args=(listener,), daemon=True).start()
    _say_port(listener.getsockname()[1])
    for _ in sys.stdin.buffer:
        print(counter.up, counter.down, flush=True)


def _say_port(port: int) -> None:
    print(port, flush=True)


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(kind: str, *arguments: str) -> None:
    """Serves until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if kind == "count":
        return count(arguments[0], int(arguments[1]))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    match kind:
        case "bare":
            return bare(arguments[0])
        case "faktory":
            return trio.run(embedded)
        case "wan":
            return trio.run(wan, arguments[0], int(arguments[1]), float(arguments[2]), int(arguments[3]))
        case "http":
            return trio.run(http)
    raise SystemExit(f"no server {kind!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
