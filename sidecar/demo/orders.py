"""What the demo asks of its pyfaktory programs, and what they report: JSON, one object a line.

The programs are processes of their own, with interpreters of their own: `python -m sidecar.demo.producers`,
`….worker` and `….sweeper`. An order comes on stdin (it may hold a password), reports go to stdout.
"""

from __future__ import annotations

import sys
import time
from typing import Literal

import msgspec

REPORT_PERIOD = 0.05  # seconds between two reports of progress

JobType = Literal["Add", "Subtract", "Multiply", "Divide"]
JOB_TYPES: tuple[JobType, ...] = ("Add", "Subtract", "Multiply", "Divide")


class Order(msgspec.Struct, frozen=True):
    """Push so many jobs, or run so many, or remove the queue.

    Args:
        url: of a Faktory or a sidecar, with its password.
        first: number of the first job; what a job computes follows from its number.
        wid: who the worker is.
    """

    url: str
    queue: str
    jobs: int = 0
    first: int = 0
    wid: str = ""


class Progress(msgspec.Struct, tag=True, frozen=True):
    """So many jobs are done."""

    done: int


class Pushed(msgspec.Struct, tag=True, frozen=True):
    """A producer's last report.

    Args:
        jids: of the jobs, in the order of their pushes.
        began: Unix time of each push, seconds.
        replies: seconds from each push to its reply.
    """

    jids: list[str]
    began: list[float]
    replies: list[float]


class Ran(msgspec.Struct, tag=True, frozen=True):
    """A worker's last report.

    Args:
        results: jid and result of each run, in the order in which they were acknowledged.
        enqueued: by jid, when Faktory had the job, in its own words.
        left: jobs that are still in the queue.
    """

    results: list[tuple[str, float]]
    enqueued: dict[str, str]
    left: int


class Removed(msgspec.Struct, tag=True, frozen=True):
    """The queue is gone."""


Report = Progress | Pushed | Ran | Removed


def numbers(number: int) -> tuple[JobType, int, int]:
    """The job of that number: its type and the two numbers it is about."""
    return JOB_TYPES[number % len(JOB_TYPES)], number, number % 7 + 1


def compute(kind: JobType, a: int, b: int) -> float:
    """What a job of the guide computes."""
    match kind:
        case "Add":
            return a + b
        case "Subtract":
            return a - b
        case "Multiply":
            return a * b
        case "Divide":
            return a / b


def read_order() -> Order:
    """The order on stdin of a program."""
    return msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)


class Reporter:
    """Writes a program's reports, progress not too often."""

    def __init__(self) -> None:
        self._next = 0.0

    def progress(self, done: int) -> None:
        """Tells how many jobs are done, unless it was told just now."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_PERIOD
            self.send(Progress(done))

    def send(self, report: Report) -> None:
        """Writes one report."""
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()
