"""Clients that do what they should: producers of all kinds and workers, each of which writes down what it was told."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyfaktory

from tests.ledger.book import QUEUE, Book
from tests.ledger.producers import (
    PATIENCE,
    AskingProducer,
    BulkProducer,
    BurstProducer,
    HttpProducer,
    LargeProducer,
    PipelinedProducer,
    Producer,
    SerialProducer,
)
from tests.real.raw_client import RawClient, ServerError

WORK = "work"
"""The queue of the workers."""
RESERVE_FOR = 7_200
"""Seconds: longer than a soak, so that what a worker never heard of stays reserved and isn't run a second time."""


class PyfaktoryProducer(Producer):
    """The client that the jobs' authors use."""

    def connected(self, port: int) -> None:
        with pyfaktory.Client(f"tcp://localhost:{port}", role="producer", timeout=int(PATIENCE)) as client:
            producer = pyfaktory.Producer(client=client)
            while self.pause():
                ((jid, _),) = self.jobs(1).items()
                self._push(producer, jid)

    def _push(self, producer: pyfaktory.Producer, jid: str) -> None:
        sent = time.monotonic()
        try:
            producer.push(pyfaktory.Job(jid=jid, jobtype="Entry", args=[jid], queue=QUEUE))
        except pyfaktory.FaktroyWorkProtocolError as error:
            _, refused, text = str(error).partition(": -")
            if not refused:
                self._book.give_up([jid])
                raise OSError(str(error)) from error
            self._book.refuse([jid], text, time.monotonic() - sent)
        except Exception as error:  # it has no words of its own for a connection that ends
            self._book.give_up([jid])
            raise OSError(str(error)) from error
        else:
            self._book.accept([jid], time.monotonic() - sent)


class WorkProducer(SerialProducer):
    """Pushes what the workers do."""

    def jobs(self, count: int) -> dict[str, str]:
        made = {}
        for jid, text in super().jobs(count).items():
            made[jid] = json.dumps(json.loads(text) | {"queue": WORK, "reserve_for": RESERVE_FOR})
        return made


@dataclass
class Done:
    """What workers have done.

    Attributes:
        acknowledged: jids whose `ACK` was answered `+OK`.
        again: jids that were fetched although their `ACK` had been answered: run twice.
        refused: texts of refused commands.
        slowest: seconds of the slowest reply to an `ACK`.
    """

    acknowledged: set[str] = field(default_factory=set)
    again: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Worker(threading.Thread):
    """Fetches, pushes a child, acknowledges; one connection.

    Args:
        book: where the child's reply is written down.
        done: shared by all workers.
    """

    def __init__(self, book: Book, done: Done, where: Callable[[], int | None], *, tag: str, wid: str) -> None:
        super().__init__(name=tag, daemon=True)
        self._book = book
        self._done = done
        self._where = where
        self._tag = tag
        self._wid = wid
        self._numbers = itertools.count()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask for the end."""
        self._stopping.set()

    def run(self) -> None:
        """Work, whatever happens to the connection."""
        while not self._stopping.is_set():
            port = self._where()
            try:
                if port is not None:
                    with RawClient(port, hello={"wid": self._wid}, timeout=PATIENCE) as client:
                        while not self._stopping.is_set():
                            self._one(client)
            except ServerError as error:
                self._done.refused.append(str(error))
            except (OSError, ValueError, AssertionError):
                pass  # away, or cut off
            self._stopping.wait(0.2)

    def _one(self, client: RawClient) -> None:
        job = client.fetch(WORK)
        if job is None:
            client.beat(self._wid)
            return
        jid = job["jid"]
        if jid in self._done.acknowledged:
            self._done.again.append(jid)
        self._push_child(client)
        sent = time.monotonic()
        client.ack(jid)
        self._done.slowest = max(self._done.slowest, time.monotonic() - sent)
        self._done.acknowledged.add(jid)

    def _push_child(self, client: RawClient) -> None:
        child = f"{self._tag}-{next(self._numbers):07d}"
        sent = time.monotonic()
        try:
            client.push({"jid": child, "queue": QUEUE, "jobtype": "Entry", "args": [child]})
        except ServerError as error:
            self._book.refuse([child], str(error), time.monotonic() - sent)
            raise
        except OSError:
            self._book.give_up([child])
            raise
        self._book.accept([child], time.monotonic() - sent)


PRODUCERS: Sequence[tuple[str, type[Producer], float]] = (
    ("serial-a", SerialProducer, 0.005),
    ("serial-b", SerialProducer, 0.02),
    ("window", PipelinedProducer, 0.05),
    ("bulk", BulkProducer, 0.05),
    ("burst", BurstProducer, 20.0),
    ("large", LargeProducer, 2.0),
    ("asking", AskingProducer, 0.5),
    ("pyfaktory", PyfaktoryProducer, 0.01),
    ("work", WorkProducer, 0.05),
)
"""Name, kind, seconds between two pushes: some 1,500 jobs a second in all."""
WORKERS = 4


class Honest:
    """All of them.

    Args:
        book: their ledger.
        port, http_port: of the sidecar; None while there is none.
    """

    def __init__(self, book: Book, port: Callable[[], int | None], http_port: Callable[[], int | None]) -> None:
        self.book = book
        self.done = Done()
        seed = random.getrandbits(32)
        self._producers: list[Producer] = [
            kind(book, port, tag=f"s-{name}", pace=pace, seed=seed) for name, kind, pace in PRODUCERS
        ]
        self._producers.append(HttpProducer(book, http_port, tag="s-http", pace=0.02, seed=seed))
        self._workers = [
            Worker(book, self.done, port, tag=f"s-worker-{number}", wid=f"honest-{number % 2}")
            for number in range(WORKERS)
        ]

    def start(self) -> None:
        """Begin."""
        for client in (*self._producers, *self._workers):
            client.start()

    def stop(self) -> None:
        """Stop, when nobody is owed a reply any more."""
        for group in (self._producers, self._workers):
            for client in group:
                client.stop()
        for group in (self._producers, self._workers):
            for client in group:
                client.join(2 * PATIENCE)
                assert not client.is_alive(), f"{client.name} still waits for a reply"
