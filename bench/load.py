"""The load program: takes orders on stdin, one after the other (`orders` has the conversation). A process of its own.

Each producer of an order is a thread with a connection of its own; the benchmark uses many of these processes with few
threads each, so that producers don't wait for each other's interpreter.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
from pyfaktory import Client, Job
from pyfaktory import Producer as Pusher

from bench.httpload import HttpProducer
from bench.jobs import JOB_TYPE, arguments, payloads
from bench.orders import UNBOUNDED, Order, Ready, Report
from bench.wire import Wire
from sidecar.protocol.replies import OK, bulk

RECORD = 200  # bytes appended before a sync: about a job
_NO_ERRORS = bulk(b"{}")

sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
"""What is asked of the disk: as SQLite asks it."""


class Producer(Protocol):
    """One connection and what it does."""

    def prepare(self) -> None:
        """All that is not to be measured."""

    def compose(self) -> None:
        """Makes the next command, where that is none of the client's work: its time is not part of the reply's."""

    def step(self) -> int:
        """Does one command to its reply; how many jobs were acknowledged by it, 0 when there is nothing left."""

    def close(self) -> None:
        """Ends the connection."""


class PyfaktoryProducer:
    """The client as anybody uses it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._client = Client(faktory_url=order.url, role="producer")
        self._numbers = itertools.count()

    def prepare(self) -> None:
        self._client.connect()
        self._pusher = Pusher(self._client)

    def compose(self) -> None:
        """Nothing: what the client does for a job is part of it."""

    def step(self) -> int:
        order = self._order
        argument = arguments(next(self._numbers), order.size)
        self._pusher.push(Job(jobtype=JOB_TYPE, args=[argument], queue=order.queue))
        return 1

    def close(self) -> None:
        self._client.disconnect()


class RawProducer:
    """`PUSH` and no client around it."""

    def __init__(self, order: Order) -> None:
        self._wire = Wire(order.url)
        self._payloads = payloads(order.queue, order.size)
        self._command = b""

    def prepare(self) -> None:
        """Nothing: a job costs little."""

    def compose(self) -> None:
        self._command = b"PUSH " + next(self._payloads)

    def step(self) -> int:
        reply = self._wire.call(self._command)
        if reply != OK:
            raise RuntimeError(f"PUSH: {reply!r}")
        return 1

    def close(self) -> None:
        self._wire.close()


class BulkProducer:
    """`PUSHB`, each written when the one before was answered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._wire = Wire(order.url)
        self._commands: Iterator[bytes] = iter(())
        self._command: bytes | None = None

    def prepare(self) -> None:
        self._commands = iter(bulk_commands(self._order))

    def compose(self) -> None:
        self._command = next(self._commands, None)

    def step(self) -> int:
        if self._command is None:
            return 0
        reply = self._wire.call(self._command)
        if reply != _NO_ERRORS:
            raise RuntimeError(f"PUSHB: {reply[:200]!r}")
        return self._order.batch

    def close(self) -> None:
        self._wire.close()


class SyncProducer:
    """Appends a record to a file and waits for the disk."""

    def __init__(self, order: Order) -> None:
        self._path = Path(order.directory) / f"sync-{os.getpid()}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def prepare(self) -> None:
        self.step()

    def compose(self) -> None:
        """Nothing: each record is the same."""

    def step(self) -> int:
        os.write(self._file, bytes(RECORD))
        sync_data(self._file)
        return 1

    def close(self) -> None:
        os.close(self._file)
        self._path.unlink()


def bulk_commands(order: Order) -> list[bytes]:
    """All of an order's jobs as `PUSHB`s."""
    jobs = payloads(order.queue, order.size)
    batches = range(0, order.jobs, order.batch)
    return [b"PUSHB [%b]" % b",".join(itertools.islice(jobs, order.batch)) for _ in batches]


def producer(order: Order) -> Producer:
    """A connection for an order."""
    match order.task:
        case "push":
            return PyfaktoryProducer(order) if order.client == "pyfaktory" else RawProducer(order)
        case "bulk":
            return BulkProducer(order)
        case "http":
            return HttpProducer(order)
        case "sync":
            return SyncProducer(order)


class Work:
    """What one thread does, and how it fares."""

    def __init__(self, order: Order, place: int) -> None:
        self._order = order
        self._phase = (order.phase + place / order.producers) % 1.0
        self._producer = producer(order)
        self._producer.prepare()
        self.jobs = 0
        self.ended = 0.0
        self.replies: list[int] = []
        self.error = ""

    def run(self, start: float) -> None:
        """Works until time or jobs are up."""
        self.ended = start
        try:
            self._steps(start)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._producer.close()

    def _steps(self, start: float) -> None:
        order, clock, note = self._order, time.perf_counter, self.replies.append
        compose, step = self._producer.compose, self._producer.step
        end = start + order.seconds
        due = first_due(start, self._phase, order.interval)
        before = clock()
        while before < end and (not order.jobs or self.jobs < order.jobs):
            compose()
            if order.interval:
                time.sleep(max(0.0, due - clock()))
                due += order.interval
            before = clock()
            done = step()
            if not done:
                return
            after = clock()
            note(int((after - before) * 1e6))
            self.jobs += done
            self.ended = before = after


def first_due(start: float, phase: float, interval: float) -> float:
    """When the first push is due: processes share the clock, not the start, and their pushes are to be spread evenly.

    Args:
        phase: of the interval that passes before it, 0 to 1.
        interval: seconds from one push to the next; 0: at once.
    """
    if not interval:
        return start
    return start + (phase * interval - start) % interval


def run(order: Order, ready: Callable[[], None]) -> Report:
    """Carries out one order."""
    if order.window == UNBOUNDED:
        return _pipeline(order, ready)
    works = [Work(order, place) for place in range(order.producers)]
    ready()
    start = time.perf_counter()
    threads = [threading.Thread(target=work.run, args=(start,)) for work in works[1:]]
    for thread in threads:
        thread.start()
    works[0].run(start)
    for thread in threads:
        thread.join()
    replies = [reply for work in works for reply in work.replies]
    error = next((work.error for work in works if work.error), "")
    return Report(sum(work.jobs for work in works), max(work.ended for work in works) - start, replies, error)


def _pipeline(order: Order, ready: Callable[[], None]) -> Report:
    """All commands at once, on one connection: what the link can do."""
    with Wire(order.url) as wire:
        commands = bulk_commands(order)
        stream = b"".join(command + b"\r\n" for command in commands)
        ready()
        start = time.perf_counter()
        sender = threading.Thread(target=wire.sock.sendall, args=(stream,))
        sender.start()
        answered = 0
        while answered < len(commands):
            replies = wire.receive_all()
            if any(reply != _NO_ERRORS for reply in replies):
                raise RuntimeError("PUSHB was refused")
            answered += len(replies)
        seconds = time.perf_counter() - start
        sender.join()
        return Report(order.jobs, seconds, [])


def main() -> None:
    """Takes orders until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark, which ends us
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        was_ready = False

        def ready() -> None:
            nonlocal was_ready
            was_ready = True
            say(Ready(ready=True))
            sys.stdin.buffer.readline()

        try:
            report = run(order, ready)
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if not was_ready:
                say(Ready(ready=False, error=words))
                continue
            report = Report(0, 0.0, [], words)
        say(report)


def say(message: Ready | Report) -> None:
    """Writes one line."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
