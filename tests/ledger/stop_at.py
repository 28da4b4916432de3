"""Runs the sidecar and kills it at a chosen step: `python -m tests.ledger.stop_at POINT COUNT`.

The step is a function of the product, wrapped from outside: the process kills itself (SIGKILL) before or after its
COUNT-th call. Nothing in the product knows of it.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

Chosen = Callable[..., bool]


def always(*_: object, **__: object) -> bool:
    """Every call counts."""
    return True


def on_disk(store: Any, *_: object, **__: object) -> bool:
    """It is the journal, not the database in memory on which a start tries what this host's SQLite can do."""
    return bool(store.directory != Path())


def opens(_: object, directory: Path, **__: object) -> bool:
    """The journal is opened."""
    return directory != Path()


def adds(store: Any, change: Any) -> bool:
    """The transaction stores jobs."""
    return on_disk(store) and bool(change.additions)


def removes(store: Any, change: Any) -> bool:
    """The transaction deletes settled jobs."""
    return on_disk(store) and bool(change.gone)


def with_jobs(_: object, data: bytes, *__: object) -> bool:
    """What is sent has jobs in it."""
    return bytes(data[:4]) == b"PUSH"


@dataclass(frozen=True)
class Step:
    """Where: `module:Class.function`; which calls of it count; when it happens at all."""

    where: str
    counts: Chosen = always
    at_start: bool = False
    at_end: bool = False
    gives_back: bool = False
    count: int = 5


STEPS = {
    "append": Step("sidecar.journal.journal:Journal._append", count=9),
    "read": Step("sidecar.producers.express:Express._read", count=9),
    "commit": Step("sidecar.journal.store:Store.commit", adds, count=9),
    "acknowledge": Step("sidecar.producers.replies:ReplyQueue.filled", count=3),
    "answer": Step("sidecar.producers.channel:Loan.use", count=17),
    "hear": Step("sidecar.intake.turn:LentTurn._committed", count=17),
    "send": Step("sidecar.upstream.pipe:Pipe.send", with_jobs, count=7),
    "reply": Step("sidecar.forwarder.forwarder:Forwarder._answered", count=7),
    "settle": Step("sidecar.journal.journal:Journal.settle", count=7),
    "delete": Step("sidecar.journal.store:Store.commit", removes, count=3),
    "checkpoint": Step("sidecar.journal.store:Store.checkpoint", on_disk, count=2),
    "vacuum": Step("sidecar.journal.store:Store.write_anew", on_disk, gives_back=True, count=1),
    "vacuum-step": Step("sidecar.journal.store:Store.give_back", on_disk, gives_back=True, count=2),
    "upkeep": Step("sidecar.journal.writer:Writer._upkeep", count=2),
    "read-back": Step("sidecar.journal.store:Store.page", on_disk, at_start=True, count=1),
    "lock": Step("sidecar.journal.lock:Lock._write", at_start=True, count=1),
    "recover": Step("sidecar.journal.journal:open_store", at_start=True, count=1),
    "open": Step("sidecar.journal.store:Store.__init__", opens, at_start=True, count=1),
    "claim": Step("sidecar.journal.journal:prepare", at_start=True, count=1),
    "reserve": Step("sidecar.journal.space:Space.disk_lacks", at_start=True, count=1),
    "close": Step("sidecar.journal.store:Store.close", on_disk, at_end=True, count=1),
    "release": Step("sidecar.journal.lock:Lock.release", at_end=True, count=1),
}
POINTS = [f"{when}-{name}" for name in STEPS for when in ("before", "after")] + ["half-a-send"]


def die() -> None:
    """The end, without a word to anybody."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Wrap the function of this point."""
    if point == "half-a-send":
        _arm_half_a_send()
        return
    when, _, name = point.partition("-")
    step = STEPS[name]
    module, _, path = step.where.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, function = path.split(".")
    for one in outer:
        owner = getattr(owner, one)
    original = getattr(owner, function)
    calls = 0

    @functools.wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += step.counts(*args)
        if calls == step.count and when == "before":
            die()
        result = original(*args, **options)
        if calls == step.count:
            die()
        return result

    setattr(owner, function, wrapped)


def _arm_half_a_send() -> None:
    original = trio.SocketStream.send_all

    async def send_half(self: trio.SocketStream, data: bytes | bytearray | memoryview) -> None:
        if bytes(data[:4]) == b"PUSH" and len(data) > 2000:
            await original(self, data[: len(data) // 2])
            die()
        await original(self, data)

    trio.SocketStream.send_all = send_half  # type: ignore[method-assign]


def main() -> None:
    """Arm, and serve."""
    point = sys.argv[1]
    space: Any = importlib.import_module("sidecar.journal.space")
    space.VACUUM_DUE = 8  # pages: in this short a life space is given back early
    if point.endswith("-step"):
        space.VACUUM_WHOLE = -1  # as with a large database: step by step
    arm(point)
    sys.argv[1:] = ["serve"]
    from sidecar.__main__ import main as serve

    serve()


if __name__ == "__main__":
    main()
