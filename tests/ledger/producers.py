"""Producers that write down each answer before they go on: serial, pipelining, in bulk and in bursts, over HTTP.

They know nothing of the sidecar but a port. When their connection ends, or can't be made, they try again at once, as
clients with a pool do; what was not answered by then is nobody's promise.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable

from tests.ledger.book import QUEUE, Book
from tests.real.raw_client import RawClient

PATIENCE = 15.0
"""Seconds that a producer waits for a reply: longer than any client does, so that a late reply is seen as late."""
RETRY = 0.02
"""Seconds between attempts to connect."""

Where = Callable[[], int | None]
"""The port to connect to; None while there is none."""


class Producer(threading.Thread):
    """Pushes until it is told to stop.

    Args:
        book: where answers are written down.
        where: the port.
        tag: what its jids start with; no other producer's do.
        pace: seconds between two pushes.
    """

    sizes: tuple[int, ...] = (0, 10, 100, 400)
    """Bytes of padding in a job; one is chosen for each."""

    def __init__(self, book: Book, where: Where, *, tag: str, pace: float = 0.0, seed: int = 0) -> None:
        super().__init__(name=tag, daemon=True)
        self._book = book
        self._where = where
        self._tag = tag
        self._pace = pace
        self._random = random.Random(f"{seed} {tag}")
        self._numbers = itertools.count()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask for the end; `join` waits for it. What is owed is waited for."""
        self._stopping.set()

    def run(self) -> None:
        """Push, whatever happens to the connection."""
        while not self._stopping.is_set():
            port = self._where()
            try:
                if port is not None:
                    self.connected(port)
            except (OSError, http.client.HTTPException):
                pass  # the sidecar is away: that is what these producers are there for
            self._stopping.wait(RETRY)

    def connected(self, port: int) -> None:
        """Push over one connection until it ends."""
        raise NotImplementedError

    def pause(self) -> bool:
        """Wait between two pushes; False when it is time to end."""
        return not (self._stopping.wait(self._pace) if self._pace else self._stopping.is_set())

    def jobs(self, count: int) -> dict[str, str]:
        """So many new jobs, as JSON, by jid."""
        made = {}
        for _ in range(count):
            jid = f"{self._tag}-{next(self._numbers):07d}"
            padding = "x" * self._random.choice(self.sizes)
            made[jid] = json.dumps({"jid": jid, "queue": QUEUE, "jobtype": "Entry", "args": [jid, padding]})
        return made


class PushProducer(Producer):
    """Sends `window` single pushes at once, then reads their replies."""

    window = 1

    def connected(self, port: int) -> None:
        with RawClient(port, timeout=PATIENCE) as client:
            while self.pause():
                jobs = self.jobs(self.window)
                owed = list(jobs)
                sent = time.monotonic()
                try:
                    client.send(b"".join(b"PUSH " + job.encode() + b"\r\n" for job in jobs.values()))
                    while owed:
                        reply = client.raw_reply()
                        self._note(owed, reply, time.monotonic() - sent)
                finally:
                    self._book.give_up(owed)
            self.look_for_late_replies(client)

    def _note(self, owed: list[str], reply: bytes, seconds: float) -> None:
        """A reply to the oldest push that is owed one."""
        if not reply.endswith(b"\r\n"):
            raise ConnectionError("closed")
        jid = owed.pop(0)
        if reply == b"+OK\r\n":
            self._book.accept([jid], seconds)
        elif reply.startswith(b"-"):
            self._book.refuse([jid], reply[1:-2].decode(), seconds)
        else:
            self._book.wonder(f"a strange reply to PUSH: {reply!r}")

    def look_for_late_replies(self, client: RawClient) -> None:
        """Nothing may come when nothing is owed."""
        client.socket.settimeout(0.2)
        try:
            late = client.socket.recv(1000)
        except TimeoutError:
            return
        except OSError:
            return
        if late:
            self._book.wonder(f"a reply that nobody waits for: {late!r}")


class SerialProducer(PushProducer):
    """One push at a time, as nearly all clients do."""


class PipelinedProducer(PushProducer):
    """Many pushes on their way at once."""

    window = 40


class LargeProducer(PushProducer):
    """One job of about 1 MB at a time."""

    sizes = (500_000, 1_000_000)


class AskingProducer(PushProducer):
    """An `INFO` behind some pushes: it waits until they are in Faktory."""

    window = 10

    def connected(self, port: int) -> None:
        with RawClient(port, timeout=PATIENCE) as client:
            while self.pause():
                jobs = self.jobs(self.window)
                owed = list(jobs)
                sent = time.monotonic()
                try:
                    client.send(b"".join(b"PUSH " + job.encode() + b"\r\n" for job in jobs.values()) + b"INFO\r\n")
                    while owed:
                        self._note(owed, client.raw_reply(), time.monotonic() - sent)
                finally:
                    self._book.give_up(owed)
                self._look_at(client.raw_reply())
            self.look_for_late_replies(client)

    def _look_at(self, reply: bytes) -> None:
        """A page of Faktory's, or a refusal."""
        if not reply.endswith(b"\r\n"):
            raise ConnectionError("closed")
        if not reply.startswith((b"$", b"-")) or (reply[:1] == b"$" and b'"faktory"' not in reply):
            self._book.wonder(f"a strange reply to INFO: {reply[:200]!r}")


class BulkProducer(PushProducer):
    """`PUSHB` of some dozens."""

    least, size = 1, 30
    """Jobs of a command."""

    def connected(self, port: int) -> None:
        with RawClient(port, timeout=PATIENCE) as client:
            while self.pause():
                jobs = self.jobs(self._random.randint(self.least, self.size))
                sent = time.monotonic()
                reply = b""
                try:
                    client.send(b"PUSHB [" + ",".join(jobs.values()).encode() + b"]")
                    reply = client.raw_reply()
                finally:
                    if not reply.endswith(b"\r\n"):
                        self._book.give_up(jobs)
                if not reply.endswith(b"\r\n"):
                    raise ConnectionError("closed")
                self._note_all(jobs, reply, time.monotonic() - sent)
            self.look_for_late_replies(client)

    def _note_all(self, jobs: dict[str, str], reply: bytes, seconds: float) -> None:
        if reply.startswith(b"-"):
            self._book.refuse(jobs, reply[1:-2].decode(), seconds)
            return
        refused: dict[str, str] = json.loads(reply.split(b"\r\n")[1])
        for jid, text in refused.items():
            self._book.refuse([jid], f"ERR {text}", seconds)
        self._book.accept(jobs.keys() - refused.keys(), seconds)


class BurstProducer(BulkProducer):
    """`PUSHB` of 4 to 6 MiB: more than the journal stores in one transaction."""

    sizes = (400,)
    least, size = 8_000, 12_000


class HttpProducer(Producer):
    """`POST /jobs`, one after the other on one connection."""

    def connected(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self.pause():
                ((jid, job),) = self.jobs(1).items()
                self._post(connection, jid, job)
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection, jid: str, job: str) -> None:
        sent = time.monotonic()
        try:
            connection.request("POST", "/jobs", body=job, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._book.give_up([jid])
            raise
        seconds = time.monotonic() - sent
        if 200 <= response.status < 300:
            self._book.accept([jid], seconds)
        else:
            self._book.refuse([jid], refusal_of(body), seconds)


def refusal_of(body: bytes) -> str:
    """The refusal in a problem document, as the Faktory endpoint would say it."""
    try:
        detail = json.loads(body).get("detail", "")
    except ValueError:
        detail = body.decode(errors="replace")
    return f"ERR {detail}"
