"""An open journal for a test, and what tests do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from sidecar.errors import Refusal
from sidecar.journal import Journal, Row

UPSTREAM = "tcp://upstream.example:7419"
MIB = 1024 * 1024
BOUND = 256 * MIB


def payload(number: int, size: int = 100) -> bytes:
    """A job's JSON of `size` bytes, or a little more."""
    return b'{"jid":"%016d","jobtype":"T","args":["%s"]}' % (number, b"x" * max(0, size - 53))


def number_of(row: Row) -> int:
    """The number that a payload was made of."""
    return int(row.payload[8:24])


def opened(directory: Path, *, upstream: str = UPSTREAM, max_bytes: int = BOUND, adopt: bool = False) -> Journal:
    """An open journal, its writer not yet running."""
    return Journal.open(directory, upstream=upstream, max_bytes=max_bytes, adopt=adopt)


@asynccontextmanager
async def running(
    directory: Path, *, upstream: str = UPSTREAM, max_bytes: int = BOUND, adopt: bool = False
) -> AsyncIterator[Journal]:
    """An open journal whose writer runs; closed at the end."""
    open_it = partial(opened, directory, upstream=upstream, max_bytes=max_bytes, adopt=adopt)
    journal = await trio.to_thread.run_sync(open_it)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        yield journal
        nursery.cancel_scope.cancel()


class Answer:
    """What an append was answered."""

    def __init__(self) -> None:
        self.came = trio.Event()
        self.refusal: Refusal | None = None

    def __call__(self, refusal: Refusal | None) -> None:
        assert not self.came.is_set(), "answered twice"
        self.refusal = refusal
        self.came.set()


async def appended(journal: Journal, payloads: Sequence[bytes], origin: int = 1) -> int:
    """Appends and waits until they are stored; raises the refusal if they aren't."""
    answer = Answer()
    first = journal.append(payloads, [origin] * len(payloads), answer)
    await answer.came.wait()
    if answer.refusal is not None:
        raise answer.refusal
    return first


async def settled(journal: Journal, ids: Sequence[int]) -> None:
    """Settles and waits until that is committed."""
    ended = trio.Event()
    journal.settle(ids, ended.set)
    await ended.wait()


async def everything(journal: Journal) -> list[Row]:
    """All rows, read in pages."""
    rows: list[Row] = []
    while page := await journal.read(rows[-1].id if rows else 0):
        rows += page
    return rows


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Waits for a condition, polled."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)
