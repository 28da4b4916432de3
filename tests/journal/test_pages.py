"""Appends are whole or not at all, pages are cut by bytes, and no row stops a start."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from sidecar.errors import Refusal
from sidecar.journal import DeadLetter
from sidecar.journal.questions import SMALLER, page
from sidecar.journal.reading import Counts
from sidecar.journal.schema import DB_NAME
from sidecar.journal.seal import Row, seal_text
from sidecar.journal.store import Addition, Change, Store
from tests.journal.running import MIB, appended, everything, number_of, payload, running, until


async def test_many_small_jobs_that_do_not_fit_leave_no_row(tmp_path: Path) -> None:
    async with running(tmp_path, max_bytes=64 * MIB) as journal:
        with pytest.raises(Refusal, match=r"not sent: so many jobs at once need [\d.]+ MiB"):
            await appended(journal, [payload(number, 60) for number in range(300_000)])
        assert await everything(journal) == []
        assert journal.fault is None
        await appended(journal, [payload(1)])


async def test_an_append_over_the_size_of_a_group_is_one_transaction(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        committed: list[int] = []
        journal.on_commit = lambda jobs, _: committed.append(jobs)
        await appended(journal, [payload(number, 200) for number in range(50_000)])
        assert [jobs for jobs in committed if jobs] == [50_000]
        assert [number_of(row) for row in await everything(journal)] == list(range(50_000))


async def test_jobs_by_id_come_in_pages_of_so_many_bytes(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(number, MIB) for number in range(20)])
        wanted, pages = list(range(1, 25)), []
        left: list[int] = wanted
        while left:
            rows, rest = await journal.fetch(left)
            pages.append(len(rows))
            left = list(rest)
        assert sum(pages) == 20
        assert max(pages) <= 4
        assert len((await journal.fetch([1, 2], max_bytes=1))[0]) == 1


async def test_a_question_that_fails_breaks_nothing(tmp_path: Path) -> None:
    def fails(_: Store) -> int:
        raise sqlite3.DataError("string or blob too big")

    async with running(tmp_path) as journal:
        await appended(journal, [payload(0)])
        with pytest.raises(sqlite3.DataError):
            await journal._ask(fails)
        with pytest.raises(MemoryError):
            await journal._ask(partial(_out_of_memory))
        assert journal.fault is None
        await appended(journal, [payload(1)])


def _out_of_memory(_: Store) -> int:
    raise MemoryError


def test_a_page_that_fails_is_asked_for_less_and_the_culprit_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.commit(Change([Addition(1, [payload(number) for number in range(20)], [0] * 20, 1.0)]))
    whole = Store.page

    def heavy(self: Store, after: int, limit: int, max_bytes: int) -> tuple[list[Row], list[int], int]:
        rows, bad, last = whole(self, after, limit, max_bytes)
        if any(row.id == 5 for row in rows):
            raise MemoryError
        return rows, bad, last

    monkeypatch.setattr(Store, "page", heavy)
    found, aside, after = [], [], 0
    while True:
        rows, bad, last = page(store, after, SMALLER, MIB)
        if last == after:
            break
        found += [row.id for row in rows]
        aside += bad
        after = last
    assert found == [1, 2, 3, 4, *range(6, 21)]
    assert aside == [5]
    assert store.counts() == Counts(jobs=19, damaged=1, last_id=20)
    store.close()


async def test_large_dead_letters_that_are_to_be_retried_do_not_stop_a_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(1, 41):
        store.commit(Change([Addition(number, [payload(number, MIB)], [0], 1.0)]))
        letter = DeadLetter(number, str(number), "reason", 1, payload(number, MIB), 1.0)
        store.commit(Change(letters=[letter]))
    store.db.execute("INSERT INTO requeue SELECT id FROM dead")
    assert len(store.flagged(100, 4 * MIB)) == 4
    store.close()
    async with running(tmp_path) as journal:
        assert (journal.waiting, journal.dead) == (40, 0)


@pytest.mark.parametrize("header", [1, 2])
async def test_rows_that_the_counts_hide_are_found_at_the_start(tmp_path: Path, header: int) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(number) for number in range(100)])
    with closing(sqlite3.connect(tmp_path / DB_NAME)) as db, db:
        db.execute("UPDATE counts SET jobs = 0, proof = 5 * dead + 7 * damaged + 11 * last_id")
        if header == 1:
            db.execute("PRAGMA user_version = 1")
            db.execute("UPDATE meta SET value = '1', crc = ? WHERE key = 'format'", (seal_text("format", "1"),))
    async with running(tmp_path) as journal:
        assert journal.waiting == 100
        assert len(await everything(journal)) == 100
    with closing(sqlite3.connect(tmp_path / DB_NAME)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


async def test_a_sound_row_that_is_no_job_is_set_aside_by_whoever_meets_it(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(0), b"no job", payload(2)])
        told: list[int] = []
        journal.set_aside = told.extend
        await journal.put_aside([2, 77])
        assert told == [2]
        await until(lambda: journal.waiting == 2)
        assert [number_of(row) for row in await everything(journal)] == [0, 2]
        assert journal.damaged == 1
