"""The self-audit: jobs in the journal that nobody knows are found and sent; those that somebody knows never are."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from sidecar.forwarder.audit import Audit, Known
from sidecar.journal.schema import DB_NAME
from sidecar.journal.seal import mark
from tests.edge.running import REFUSED, Running, faktory, push, sidecar

DISK: dict[str, Any] = {"SIDECAR_ACK": "disk"}
FEW: dict[str, Any] = {"SIDECAR_ACK": "disk", "SIDECAR_MEMORY_MAX_BYTES": 1 << 20}


def plant(tmp_path: Path, first: int, jobs: int) -> None:
    """Put jobs into the journal behind the sidecar's back, as a defect of its own would leave them."""
    rows = []
    for number in range(first, first + jobs):
        payload = b'{"jid":"planted-%06d","jobtype":"T","args":[]}' % number
        rows.append((number, mark(number, payload, 5, time.time()), payload))
    with closing(sqlite3.connect(tmp_path / "journal" / DB_NAME, timeout=5)) as db, db:
        db.executemany("INSERT INTO jobs VALUES (?, ?, ?)", rows)


def audit_of(running: Running) -> Audit:
    journal = running.inner.journal
    assert journal is not None
    return running.inner.forwarder.audit(journal)


async def test_planted_jobs_are_sent_and_counted(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, **DISK) as running:
        inner, audit = running.inner, audit_of(running)
        journal = inner.journal
        assert journal is not None
        client = await running.connect()
        for number in range(20):
            assert await client.call(push(f"ordinary-{number:04d}")) == b"+OK\r\n"
        await running.until(lambda _: journal.waiting == 0 and inner.intake.owed == 0)
        plant(tmp_path, 3, 10)  # below the ids that are counted: no count tells of them
        await audit.look()
        assert inner.counts.recovered == 0  # once says nothing
        await audit.look()
        assert (inner.counts.recovered, inner.counts.in_doubt) == (10, 10)
        await running.until(lambda _: journal.waiting == 0 and inner.intake.owed == 0 and len(server.stored()) == 30)
        for _ in range(3):
            await audit.look()
        assert inner.counts.recovered == 10
        assert len({job["jid"] for job in server.stored()}) == 30


async def test_what_is_known_is_never_taken_for_unknown(tmp_path: Path) -> None:
    """In lanes, in the backlog, wanted by a barrier, parked behind a FLUSH: the link is down, and nothing moves."""
    async with sidecar(REFUSED, tmp_path, link=False, **FEW) as running:
        inner, audit = running.inner, audit_of(running)
        client = await running.connect()
        for number in range(3_000):
            await client.send(push(f"ordinary-{number:04d}"))
        for _ in range(3_000):
            assert await client.reply() == b"+OK\r\n"
        await running.until(lambda _: inner.forwarder.backlog > 0 and inner.intake.owed == 3_000)
        await client.send(b"INFO\r\n")  # wants them all ahead of others
        inner.forwarder.when_all_settled(lambda: None)  # parks what comes
        other = await running.connect()
        assert await other.call(push("parked-one")) == b"+OK\r\n"
        await running.until(lambda _: inner.intake.owed == 3_001)
        for _ in range(6):
            await audit.look()
        assert inner.counts.recovered == 0


async def test_known_says_which_jobs_are_known() -> None:
    known = Known({7}, [range(10, 20), range(30, 31)], [[100, 105]])
    assert [number for number in range(110) if known.includes(number)] == [7, *range(10, 20), 30, 100, 105]


async def test_jobs_are_never_doubled_while_thousands_come_and_go(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, **FEW) as running:
        inner, audit = running.inner, audit_of(running)
        client = await running.connect()
        async with trio.open_nursery() as nursery:

            async def look() -> None:
                while True:
                    await audit.look()

            nursery.start_soon(look)
            for number in range(3_000):
                await client.send(push(f"ordinary-{number:04d}"))
            for _ in range(3_000):
                assert await client.reply() == b"+OK\r\n"
            await running.until(lambda _: inner.intake.owed == 0 and len(server.stored()) >= 3_000)
            nursery.cancel_scope.cancel()
        assert len(server.stored()) == 3_000
        assert inner.counts.recovered == 0
