"""What the benchmark asks of its load programs, and what they report: JSON, one object a line.

A program reads an order, prepares, writes `{"ready": true}`, reads a line that starts it, does its work, and writes a
report; then it takes the next order. It ends when its stdin does. The Go and Node programs speak the same.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Task = Literal["push", "bulk", "http", "sync"]
Client = Literal["pyfaktory", "raw", "go", "node"]

UNBOUNDED = 0  # of a window: never wait for a reply


class Order(msgspec.Struct, frozen=True):
    """What one program is to do.

    Args:
        task: `push` single jobs, push in `bulk`, post to `http`, or append and `sync` a file.
        url: of a Faktory or a sidecar, with its password; `http://…` for that task.
        producers: connections of this program; each works on a thread of its own.
        seconds: when to stop beginning anything new.
        jobs: the most jobs of each producer; 0: no end but the time.
        interval: seconds from one push to the next of a producer; 0: as soon as the reply is there.
        phase: of that interval that passes before a producer's first push, 0 to 1.
        batch: jobs of one command or request.
        window: commands that may wait for their reply at a time, UNBOUNDED for any number.
        size: bytes of text in each job's arguments.
        directory: for `sync`.
        path: for `http`.
    """

    task: Task
    url: str = ""
    queue: str = ""
    client: Client = "raw"
    producers: int = 1
    seconds: float = 1.0
    jobs: int = 0
    interval: float = 0.0
    phase: float = 0.0
    batch: int = 1
    window: int = 1
    size: int = 0
    directory: str = ""
    path: str = ""


class Report(msgspec.Struct, frozen=True):
    """What became of it.

    Args:
        jobs: that were acknowledged.
        seconds: from the start to the last reply.
        replies: microseconds from each command to its reply.
        error: why it ended early, "" when it didn't.
    """

    jobs: int
    seconds: float
    replies: list[int]
    error: str = ""


class Ready(msgspec.Struct, frozen=True):
    """All is prepared; or not, and why."""

    ready: bool
    error: str = ""
