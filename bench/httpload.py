"""Posts jobs over HTTP on one keep-alive connection, by a raw socket: the server is measured, no client library."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from bench.jobs import payloads
from bench.orders import Order

_CHUNK = 64 * 1024  # bytes asked of a socket at once; from 128 KiB on the C library maps memory for each call
_TIMEOUT = 30.0  # seconds


class HttpProducer:
    """One connection; each step is a request and its answer.

    A batch of one is a request to `/jobs`, a larger one to `/jobs/batch`: both take a queue, which `/jobs/add` doesn't.
    """

    def __init__(self, order: Order) -> None:
        where = urlsplit(order.url)
        assert where.hostname is not None
        self._order = order
        self._host = f"{where.hostname}:{where.port}".encode()
        self._sock = socket.create_connection((where.hostname, where.port or 80), timeout=_TIMEOUT)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._payloads = payloads(order.queue, order.size)
        self._requests: list[bytes] = []
        self._next: bytes | None = None

    def prepare(self) -> None:
        order = self._order
        for _ in range(0, order.jobs if order.batch > 1 else 0, order.batch):
            batch = [self._job() for _ in range(order.batch)]
            self._requests.append(self._request(b'{"jobs":[%b]}' % b",".join(batch)))

    def compose(self) -> None:
        if self._order.batch == 1:
            self._next = self._request(self._job())
        else:
            self._next = self._requests.pop() if self._requests else None

    def step(self) -> int:
        if self._next is None:
            return 0
        self._sock.sendall(self._next)
        head, body = self._answer()
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0]!r}: {body[:300]!r}")
        return self._order.batch

    def close(self) -> None:
        self._sock.close()

    def _job(self) -> bytes:
        return next(self._payloads).replace(b'"jobtype"', b'"type"', 1)

    def _request(self, body: bytes) -> bytes:
        head = b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % (self._order.path.encode(), self._host, len(body)) + body

    def _answer(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = _content_length(head)
        parts, size = [body], len(body)
        while size < length:
            parts.append(self._more())
            size += len(parts[-1])
        return head, b"".join(parts)

    def _more(self) -> bytes:
        data = self._sock.recv(_CHUNK)
        if not data:
            raise RuntimeError("the server closed the connection")
        return data


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError("an answer without Content-Length")
