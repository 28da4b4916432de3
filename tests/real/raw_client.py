"""A tiny blocking client of the Faktory Work Protocol: tests see exactly what is said."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from types import TracebackType
from typing import Any, Self


class ServerError(Exception):
    """An error reply; the text is what follows the `-`, its code included: `ERR unknown command X`."""


class RawClient:
    """One connection to a Faktory, or to whatever stands in for one.

    Args:
        port: TCP port on `host`.
        password: answers a salted greeting; None for servers without one.
        hello: fields to add to the HELLO, `{"wid": "w1"}` makes a consumer; None leaves a field out.
        greet: False leaves the handshake to the test.
        tls: a context to connect with TLS, with `host` as the server's name.
        timeout: seconds that any single wait may take.

    Raises:
        ServerError: the handshake was refused.
    """

    def __init__(
        self,
        port: int,
        password: str | None = None,
        *,
        host: str = "127.0.0.1",
        hello: dict[str, Any] | None = None,
        greet: bool = True,
        tls: ssl.SSLContext | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.socket: socket.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self._file = self.socket.makefile("rb")
        self.greeting: dict[str, Any] = {}
        if greet:
            try:
                self._greet(password, hello or {})
            except BaseException:
                self.close()
                raise

    def send(self, line: str | bytes) -> None:
        """Sends one command line; CRLF is added unless the line ends in LF already."""
        data = line.encode() if isinstance(line, str) else line
        self.socket.sendall(data if data.endswith(b"\n") else data + b"\r\n")

    def raw_reply(self) -> bytes:
        """The next reply, byte for byte, its CRLF included; b"" when the server has closed."""
        head = self._file.readline()
        if not head.startswith(b"$") or head == b"$-1\r\n":
            return head
        return head + self._file.read(int(head[1:]) + 2)

    def reply(self) -> str | None:
        """The next reply as text: a simple string, a bulk body, None for nil.

        Raises:
            ServerError: it is an error reply.
            ConnectionError: the server closed instead.
        """
        raw = self.raw_reply()
        if not raw.endswith(b"\r\n"):
            raise ConnectionError(f"closed by the server after {raw!r}")
        match raw[:1]:
            case b"+" | b":":
                return raw[1:-2].decode()
            case b"-":
                raise ServerError(raw[1:-2].decode())
            case b"$":
                return None if raw == b"$-1\r\n" else raw.split(b"\r\n", 1)[1][:-2].decode()
        raise AssertionError(f"no reply of the protocol: {raw[:200]!r}")

    def call(self, line: str | bytes) -> str | None:
        """Sends a command and returns its reply, as `reply` does."""
        self.send(line)
        return self.reply()

    def raw_call(self, line: str | bytes) -> bytes:
        """Sends a command and returns its reply byte for byte."""
        self.send(line)
        return self.raw_reply()

    def push(self, job: dict[str, Any]) -> str | None:
        """`PUSH` of one job; "OK" when it was taken."""
        return self.call("PUSH " + json.dumps(job))

    def push_bulk(self, jobs: list[dict[str, Any]]) -> dict[str, str]:
        """`PUSHB`; the map of refused jids to texts, empty when all were taken."""
        refused: dict[str, str] = json.loads(self.call("PUSHB " + json.dumps(jobs)) or "{}")
        return refused

    def fetch(self, *queues: str) -> dict[str, Any] | None:
        """`FETCH`; waits up to 2 s on empty queues and is None then. Needs a `wid` in the HELLO."""
        body = self.call(" ".join(["FETCH", *queues]))
        return None if body is None else json.loads(body)

    def ack(self, jid: str) -> str | None:
        """`ACK` of a fetched job."""
        return self.call("ACK " + json.dumps({"jid": jid}))

    def fail(self, jid: str, message: str = "it failed") -> str | None:
        """`FAIL` of a fetched job."""
        return self.call("FAIL " + json.dumps({"jid": jid, "errtype": "Test", "message": message, "backtrace": []}))

    def beat(self, wid: str) -> str | None:
        """`BEAT`; "OK", or the server's wish as JSON text: `{"state":"quiet"}`."""
        return self.call("BEAT " + json.dumps({"wid": wid}))

    def info(self) -> dict[str, Any]:
        """`INFO`."""
        report: dict[str, Any] = json.loads(self.call("INFO") or "{}")
        return report

    def half_close(self) -> None:
        """Ends our direction of the connection and leaves the other open."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection without an END."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greet(self, password: str | None, extra: dict[str, Any]) -> None:
        hi = self.reply() or ""
        if not hi.startswith("HI "):
            raise AssertionError(f"no greeting: {hi!r}")
        self.greeting = json.loads(hi[3:])
        hello: dict[str, Any] = {"v": 2}
        if "s" in self.greeting:
            digest = ((password or "") + self.greeting["s"]).encode()
            for _ in range(self.greeting["i"]):
                digest = hashlib.sha256(digest).digest()
            hello["pwdhash"] = digest.hex()
        hello |= {"hostname": "raw-client", "pid": 1, "labels": []} if extra.get("wid") else {}
        hello |= extra
        self.call("HELLO " + json.dumps({name: value for name, value in hello.items() if value is not None}))
