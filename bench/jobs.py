"""The jobs that are pushed: the same bytes in every row, as pyfaktory writes them."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator

import msgspec
from pyfaktory import Job

JOB_TYPE = "Add"


def arguments(number: int, size: int) -> dict[str, object]:
    """The one argument of a job.

    Args:
        size: bytes of further text in it.
    """
    pair: dict[str, object] = {"a": number, "b": 1}
    return pair | {"text": "x" * size} if size else pair


def payloads(queue: str, size: int = 0) -> Iterator[bytes]:
    """Jobs without end, each with a jid of its own, as pyfaktory writes them."""
    sample = Job(jobtype=JOB_TYPE, args=["ARGUMENT"], queue=queue, jid="THE-JID").model_dump(exclude_none=True)
    text = msgspec.json.encode(sample)
    start, rest = text.split(b"THE-JID")
    middle, end = rest.split(b'"ARGUMENT"')
    prefix = f"{os.getpid():x}{secrets.token_hex(6)}".encode()
    for number in itertools.count():
        argument = msgspec.json.encode(arguments(number, size))
        yield b"%b%b%012x%b%b%b" % (start, prefix, number, middle, argument, end)
