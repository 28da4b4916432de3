"""A journal whose row of counts says more or fewer jobs than there are: all are sent, and the counts are mended."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sidecar.journal.store import LOOK_AT_ROWS, Addition, Change, Store
from tests.edge.running import faktory, sidecar

JOBS = 2 * LOOK_AT_ROWS + 500  # more than a start looks at


@pytest.mark.parametrize("wrong", [-1_400, -500, -1, 1, 500])
async def test_all_jobs_are_sent_and_the_counts_are_mended(tmp_path: Path, wrong: int) -> None:
    directory = tmp_path / "journal"
    directory.mkdir()
    store = Store(directory)
    payloads = [b'{"jid":"counted-%06d","jobtype":"T","args":[]}' % number for number in range(JOBS)]
    store.commit(Change(additions=[Addition(1, payloads, [1] * JOBS, 1e9)]))
    store.commit(Change(gone=[1]))
    store.close()
    with sqlite3.connect(directory / "journal.db") as db:
        db.execute("UPDATE counts SET jobs = jobs + ?1, proof = proof + 3 * ?1", (wrong,))
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        journal = running.inner.journal
        assert journal is not None
        assert journal.waiting == JOBS - 1 + wrong
        await running.until(lambda inner: len(server.store.queues.get("default", ())) == JOBS - 1)
        await running.until(lambda inner: inner.forwarder.unsettled == 0 and journal.waiting == 0)
        assert running.inner.intake.owed == 0
        assert running.inner.forwarder.backlog == 0
        assert journal.missing == 0
