"""`healthcheck`: over HTTP where it is on, else by the greeting of the local Faktory endpoint."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.cli.command_line import sidecar

UPSTREAM = {"SIDECAR_UPSTREAM": "tcp://faktory.invalid"}


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()
        self.wfile.write(b'{"reason":\n"journal full"}')

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def http_server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    server = HTTPServer(("127.0.0.1", 0), Health)
    seen: list[tuple[str, str | None]] = []
    server.seen = seen  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_over_http() -> None:
    with http_server() as (address, seen):
        environ = {**UPSTREAM, "SIDECAR_HTTP_LISTEN": address, "SIDECAR_HTTP_TOKEN": "t0ken"}
        well = sidecar("healthcheck", environ=environ)
        assert (well.returncode, well.stdout, well.stderr) == (0, "", "")
        unready = sidecar("healthcheck", "--ready", environ=environ)
        assert unready.returncode == 1
        assert unready.stderr == 'error: not well: /readyz answered 503 {"reason": "journal full"}\n'
    assert seen == [("/livez", "Bearer t0ken"), ("/readyz", "Bearer t0ken")]


@pytest.mark.parametrize(
    ("greeting", "code", "words"),
    [(b'+HI {"v":2}\r\n', 0, ""), (b"HTTP/1.1 200 OK\r\n", 1, "gave no Faktory greeting"), (b"", 1, "no Faktory")],
)
def test_over_the_faktory_endpoint(greeting: bytes, code: int, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        listen = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = sidecar("healthcheck", "--listen", listen, "--http-listen", "off", environ=UPSTREAM)
        thread.join(10)
    assert ended.returncode == code
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == code


def test_nobody_answers() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        ended = sidecar("healthcheck", environ={**UPSTREAM, "SIDECAR_HTTP_LISTEN": address})
    assert (ended.returncode, ended.stderr) == (1, "error: not well: connection refused\n")


def test_silence_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listen = f"127.0.0.1:{silent.getsockname()[1]}"
        ended = sidecar("healthcheck", "--timeout", "0.2", "--listen", listen, "--http-listen", "off", environ=UPSTREAM)
    assert (ended.returncode, ended.stderr) == (1, "error: not well: no answer in time\n")
