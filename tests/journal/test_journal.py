"""The journal as the intake and the forwarder use it, on a real database."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import trio

from sidecar.errors import Refusal, StartError
from sidecar.journal import DeadLetter, Journal
from tests.journal.running import (
    BOUND,
    MIB,
    UPSTREAM,
    Answer,
    appended,
    everything,
    number_of,
    opened,
    payload,
    running,
    settled,
    until,
)


async def test_appended_jobs_come_back_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        first = await appended(journal, [payload(n) for n in range(1500)], origin=7)
        assert first == 1
        assert journal.waiting == 1500
        assert journal.last_id == 1500
        rows = await journal.read(0)
        assert [row.id for row in rows] == list(range(1, 1001))
        rest = await journal.read(rows[-1].id)
        assert [row.payload for row in rest] == [payload(n) for n in range(1000, 1500)]
        assert {row.origin for row in rest} == {7}
        assert await journal.read(rest[-1].id) == []


async def test_read_stops_at_bytes_but_gives_one_row(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n, 1000) for n in range(10)])
        assert len(await journal.read(0, max_bytes=3500)) == 3
        assert len(await journal.read(0, max_bytes=1)) == 1


async def test_settled_jobs_are_gone_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(100)])
        await settled(journal, [*range(1, 51), 60, 62])
        assert journal.waiting == 48
    async with running(tmp_path) as journal:
        assert journal.recovery.jobs == 48
        assert not journal.recovery.unclean
        assert [row.id for row in await journal.read(0)] == [*range(51, 60), 61, *range(63, 101)]
        assert await appended(journal, [payload(0)]) == 101


async def test_what_is_queued_at_the_end_is_committed(tmp_path: Path) -> None:
    answers: list[Refusal | None] = []
    async with running(tmp_path) as journal:
        await appended(journal, [payload(0)])
        for number in range(1, 20):
            journal.append([payload(number)], [1], answers.append)
        journal.settle([1])
    assert answers == [None] * 19
    async with running(tmp_path) as journal:
        assert journal.waiting == 19


async def test_fetch_gives_these_rows(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(100)])
        assert [row.id for row in (await journal.fetch([5, 6, 90, 1234]))[0]] == [5, 6, 90]


async def test_attempts_survive_a_restart_and_end_with_the_job(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(3)])
        journal.note_attempts([2, 3], 4)
    async with running(tmp_path) as journal:
        assert [row.attempts for row in await journal.read(0)] == [0, 4, 4]
        await settled(journal, [2])
        assert [(row.id, row.attempts) for row in await journal.read(0)] == [(1, 0), (3, 4)]


async def test_dead_letters_survive_and_leave_the_jobs(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(3)])
        ended = trio.Event()
        journal.bury([DeadLetter(2, "j2", "ERR no", 5, payload(1), 123.0)], ended.set)
        await ended.wait()
        assert (journal.waiting, journal.dead) == (2, 1)
    async with running(tmp_path) as journal:
        assert (journal.recovery.jobs, journal.recovery.dead) == (2, 1)
        assert [row.id for row in await journal.read(0)] == [1, 3]


async def test_jobs_for_another_upstream_stop_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(0)])
    with pytest.raises(StartError, match=r"holds 1 jobs for tcp://upstream\.example:7419, upstream is tcp://b:1"):
        Journal.open(tmp_path, upstream="tcp://b:1", max_bytes=BOUND)
    async with running(tmp_path, upstream="tcp://b:1", adopt=True) as journal:
        assert not journal.recovery.unclean  # a refused start leaves no mark
        await settled(journal, [1])
    async with running(tmp_path, upstream="tcp://c:1") as journal:
        assert journal.waiting == 0


async def test_a_full_journal_refuses_and_takes_again(tmp_path: Path) -> None:
    async with running(tmp_path, max_bytes=40 * 1024 * 1024) as journal:
        with pytest.raises(Refusal, match=r"not sent: journal full: .* of 40 MiB"):  # noqa: PT012
            for number in range(20):
                await appended(journal, [payload(number, 1000)] * 1000)
        assert journal.fault is not None
        assert journal.waiting > 2000
        await settled(journal, range(1, 2001))
        await appended(journal, [payload(0, 1000)] * 1000)
        assert journal.fault is None
        assert journal.size < 40 * 1024 * 1024


async def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(StartError, match=r"in use by pid \d+ on .+ since 20"):
            Journal.open(tmp_path, upstream=UPSTREAM, max_bytes=BOUND)


@pytest.mark.slow
async def test_disk_use_returns_to_a_floor(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        first = await appended(journal, [payload(n, 1000) for n in range(20_000)])
        await until(lambda: journal.size > 30 * MIB)
        await settled(journal, range(first, first + 20_000))
        await until(lambda: journal.size < 17 * MIB)
        assert await appended(journal, [payload(0)]) == 20_001


@pytest.mark.slow
async def test_a_backlog_above_a_lowered_bound_drains(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n, 1000) for n in range(20_000)])
    async with running(tmp_path, max_bytes=40 * MIB) as journal:
        with pytest.raises(Refusal, match="journal full"):
            await appended(journal, [payload(0)])
        assert len(await everything(journal)) == 20_000
        await settled(journal, range(1, 20_001))
        await until(lambda: journal.fault is None)
        await appended(journal, [payload(0)])


async def test_an_append_larger_than_a_transaction_is_stored_whole(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        first = await appended(journal, [payload(n, 100_000) for n in range(150)])
        assert await appended(journal, [payload(150)]) == first + 150
        assert [number_of(row) for row in await everything(journal)] == list(range(151))
        assert journal.waiting == 151


async def test_an_unwritable_directory_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"can't be opened: .*SIDECAR_JOURNAL_DIR") as error:
        opened(tmp_path / "file")
    assert "\n" not in str(error.value)


async def test_jobs_settled_alone_are_deleted_soon(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(10)])
        with trio.fail_after(2):
            await settled(journal, [1, 2, 3])
        assert journal.waiting == 7


async def test_an_unclean_stop_is_known(tmp_path: Path) -> None:
    directory, copy = tmp_path / "journal", tmp_path / "copy"
    async with running(directory) as journal:
        await appended(journal, [payload(n) for n in range(10)])
        shutil.copytree(directory, copy)
    async with running(copy) as journal:
        assert journal.recovery.unclean
        assert journal.recovery.jobs == 10


async def test_what_comes_after_the_end_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        pass
    answer = Answer()
    journal.append([payload(0)], [1], answer)
    assert answer.refusal is not None
    assert journal.fault == "the journal is closed"


async def test_the_origins_of_an_earlier_run_are_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(0)], origin=5)
    async with running(tmp_path) as journal:
        await appended(journal, [payload(1)], origin=5)
        assert [row.origin for row in await everything(journal)] == [0, 5]
        assert [row.origin for row in (await journal.fetch([1, 2]))[0]] == [0, 5]


@pytest.mark.slow
async def test_a_million_jobs_open_at_once_and_take_no_memory(tmp_path: Path) -> None:
    async with running(tmp_path, max_bytes=1 << 30) as journal:
        for _ in range(100):
            await appended(journal, [payload(n) for n in range(10_000)])
    started = time.monotonic()
    journal = opened(tmp_path, max_bytes=1 << 30)
    assert time.monotonic() - started < 2
    assert journal.recovery.jobs == 1_000_000
