"""Blocking connections for load and for looking: nothing between the benchmark and the socket."""

from __future__ import annotations

import os
import socket
import statistics
import time
from types import TracebackType
from typing import Any

import msgspec

from sidecar.config import UpstreamAddress
from sidecar.config.parsing import upstream as parse_url
from sidecar.config.tls import upstream_context
from sidecar.protocol.handshake import Greeting, hello_line
from sidecar.protocol.replies import OK, ReplyReader, bulk_body, error_text

TIMEOUT = 30.0  # seconds, as pyfaktory has it
TRIES = 9  # handshakes of which the median is the round trip
_CHUNK = 64 * 1024  # bytes asked of a socket at once; from 128 KiB on the C library maps memory for each call


class WireError(Exception):
    """The server did not answer as it should: one line."""


class Wire:
    """A connection after its handshake.

    Args:
        url: of the server, with its password.

    Raises:
        WireError: it can't be reached, or refuses us.
    """

    def __init__(self, url: str) -> None:
        self.address = parse_url(url)
        self.replies = ReplyReader()
        self._arrived: list[bytes] = []
        try:
            self.sock = _connect(self.address)
        except OSError as error:
            raise WireError(f"{self.address.display}: {error}") from error
        self.round_trip = self._shake_hands()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self.sock.close()

    def call(self, command: bytes) -> bytes:
        """Sends one command, without its line end, and waits for its raw reply."""
        self.sock.sendall(command + b"\r\n")
        return self.receive()

    def receive(self) -> bytes:
        """The next raw reply."""
        while not self._arrived:
            self._arrived = self.receive_all()
        return self._arrived.pop(0)

    def receive_all(self) -> list[bytes]:
        """The replies that the next piece of data completes, perhaps none."""
        try:
            data = self.sock.recv(_CHUNK)
        except OSError as error:
            raise WireError(f"{self.address.display}: {error}") from error
        if not data:
            raise WireError(f"{self.address.display} closed the connection")
        return self.replies.feed(data)

    def _shake_hands(self) -> float:
        """Seconds from HELLO to its reply: a round trip, and the check of a password where there is one."""
        greeting = Greeting.parse(self.receive())
        password = self.address.password
        line = hello_line(
            greeting=greeting,
            password=password.reveal() if password is not None else None,
            username=self.address.username,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            labels=["faktory-sidecar-bench"],
        )
        before = time.perf_counter()
        self.sock.sendall(line)
        reply = self.receive()
        if reply != OK:
            raise WireError(f"{self.address.display}: {error_text(reply) or repr(reply)}")
        return time.perf_counter() - before


def _connect(address: UpstreamAddress) -> socket.socket:
    sock = socket.create_connection((address.host, address.port), timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return upstream_context(address).wrap_socket(sock, server_hostname=address.host) if address.tls else sock


def round_trip(url: str) -> float:
    """The median round trip to a server in seconds, as a handshake sees it."""
    trips = []
    for _ in range(TRIES):
        with Wire(url) as wire:
            trips.append(wire.round_trip)
    return statistics.median(trips)


class Observer:
    """Looks into a Faktory from beside it, and empties the benchmark's queue; touches nothing else."""

    def __init__(self, url: str, queue: str) -> None:
        self._wire = Wire(url)
        self._queue = queue

    def info(self) -> dict[str, Any]:
        """The server's INFO."""
        body = bulk_body(self._wire.call(b"INFO"))
        found: dict[str, Any] = msgspec.json.decode(body or b"{}")
        return found

    def version(self) -> str:
        """The server's version."""
        return str(self.info()["server"]["faktory_version"])

    def count(self) -> int:
        """Jobs in our queue."""
        queues: dict[str, int] = self.info()["faktory"]["queues"]
        return queues.get(self._queue, 0)

    def empty(self) -> None:
        """Removes our queue and what is in it."""
        reply = self._wire.call(b"QUEUE REMOVE " + self._queue.encode())
        if reply != OK:
            raise WireError(f"the queue {self._queue} can't be removed: {error_text(reply)}")

    def close(self) -> None:
        """Ends the connection."""
        self._wire.close()
