"""Bytes flipped, cut off and torn anywhere: the start succeeds, nothing wrong is sent, all is counted."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from sidecar.errors import StartError
from sidecar.journal import DeadLetter
from sidecar.journal.journal import Journal
from sidecar.journal.store import Store
from sidecar.journal.visitor import Visitor
from tests.journal.running import appended, everything, number_of, opened, payload, running, settled, until

JOBS = 400
GROUP = 20


def fill(directory: Path, *, jobs: int = JOBS, wal: bool) -> None:
    """A journal of an unclean stop, with its last jobs in the WAL or all of them in the database."""
    room = directory.parent / "origin"

    async def main() -> None:
        async with running(room) as journal:
            for start in range(0, jobs, GROUP):
                await appended(journal, [payload(n, 300) for n in range(start, start + GROUP)])
                if start == jobs // 2 and not wal:
                    journal.bury([DeadLetter(3, "jid", "ERR bad", 1, payload(2), 1.0)])
            if wal:
                shutil.copytree(room, directory)
        if not wal:
            shutil.copytree(room, directory)
            (directory / "owner").write_text("{}")

    trio.run(main)


async def contents(directory: Path) -> tuple[Journal, list[int]]:
    """The journal and the numbers of the jobs that it gives, each proven to be whole."""
    async with running(directory) as journal:
        rows = await everything(journal)
        for row in rows:
            assert row.payload == payload(number_of(row), 300)
        await settled(journal, [row.id for row in rows])
        await until(lambda: journal.waiting == 0)
        return journal, [number_of(row) for row in rows]


def flip(path: Path, offset: int, bit: int) -> None:
    """Flips a bit."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def check(numbers: list[int], journal: Journal, *, wal: bool, what: str) -> None:
    """What was read back is right, and what wasn't is known."""
    expected = [number for number in range(JOBS) if wal or number != 2]
    assert set(numbers) <= set(expected), what
    assert len(numbers) == len(set(numbers)), what
    lost = len(expected) - len(numbers)
    told = journal.recovery.damaged + journal.damaged
    if lost <= told or journal.recovery.unknown_bytes or journal.missing:
        return
    # a WAL that just ends is what an unfinished write looks like
    assert wal, f"{what}: {lost} jobs are lost without a word"
    assert numbers == expected[: len(numbers)], what
    assert what.startswith("cut") or lost <= GROUP, what


def flip_somewhere(path: Path, dice: random.Random) -> str:
    """Flips one bit."""
    offset, bit = dice.randrange(path.stat().st_size), dice.randrange(8)
    flip(path, offset, bit)
    return f"bit {bit} of byte {offset}"


def cut_somewhere(path: Path, dice: random.Random) -> str:
    """Cuts the end off."""
    size = dice.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(size)
    return f"cut at {size}"


def tear_somewhere(path: Path, dice: random.Random) -> str:
    """Overwrites a stretch with noise or zeros."""
    offset, size = dice.randrange(path.stat().st_size), dice.choice([1, 16, 512, 4096, 20000])
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(dice.randbytes(size) if dice.random() < 0.5 else bytes(size))
    return f"{size} bytes at {offset}"


@pytest.mark.slow
@pytest.mark.parametrize("harm", [flip_somewhere, cut_somewhere, tear_somewhere])
@pytest.mark.parametrize(("name", "rounds"), [("journal.db", 15), ("journal.db-wal", 25), ("owner", 2), ("reserve", 2)])
def test_damage_never_stops_the_start_and_is_counted(
    tmp_path: Path, name: str, rounds: int, harm: Callable[[Path, random.Random], str]
) -> None:
    source, wal = tmp_path / "source", name == "journal.db-wal"
    fill(source, wal=wal)
    dice = random.Random(7)
    for number in range(rounds):
        directory = tmp_path / f"copy-{number}"
        shutil.copytree(source, directory)
        what = harm(directory / name, dice)
        journal, numbers = trio.run(contents, directory)
        check(numbers, journal, wal=wal, what=what)
        shutil.rmtree(directory)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"not a database at all\n" * 400])
def test_a_foreign_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    journal, numbers = trio.run(contents, tmp_path)
    assert numbers == []
    assert journal.recovery.unknown_bytes == len(content)
    if content:
        assert journal.recovery.set_aside is not None
        assert (journal.recovery.set_aside / "journal.db").read_bytes() == content


@pytest.mark.parametrize("harm", [lambda path: os.truncate(path, 0), Path.unlink], ids=["emptied", "deleted"])
async def test_a_database_that_is_gone_takes_no_job_of_its_log_with_it(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    directory = tmp_path / "journal"
    async with running(tmp_path / "origin") as journal:
        for start in range(0, JOBS, GROUP):
            await appended(journal, [payload(n, 300) for n in range(start, start + GROUP)])
        shutil.copytree(tmp_path / "origin", directory)
    harm(directory / "journal.db")
    journal, numbers = await contents(directory)
    assert numbers == list(range(JOBS))
    assert journal.recovery.set_aside is not None


async def test_a_damaged_job_is_never_sent(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(3)])
    content = (tmp_path / "journal.db").read_bytes()
    place = content.index(payload(1)) + 10
    flip(tmp_path / "journal.db", place, 0)
    async with running(tmp_path) as journal:
        told: list[int] = []
        journal.set_aside = told.extend
        assert [number_of(row) for row in await everything(journal)] == [0, 2]
        assert told == [2]
        await until(lambda: (journal.waiting, journal.damaged) == (2, 1))
    async with running(tmp_path) as journal:
        assert (journal.waiting, journal.damaged) == (2, 1)


@pytest.mark.parametrize("anew", [False, True])
async def test_a_flipped_first_page_loses_nothing(tmp_path: Path, *, anew: bool) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(300)])
    if anew:
        store = Store(tmp_path)
        store.write_anew()
        store.close()
    for place in (0, 17, 30, 60, 69, 101, 1500):
        flip(tmp_path / "journal.db", place, 1)
        async with running(tmp_path) as journal:
            assert len(await everything(journal)) == 300, place


@pytest.mark.parametrize(
    ("harm", "lost"),
    [
        ("UPDATE jobs SET id = 9223372036854775807 WHERE id = 3", 1),
        ("UPDATE jobs SET id = 8796093022208 WHERE id = 3", 1),
        ("UPDATE jobs SET id = 0 WHERE id = 3; UPDATE jobs SET id = -7 WHERE id = 2", 2),
        ("INSERT INTO dead VALUES (9223372036854775807, 'jid', 'ERR', 1, 1.0, 0, x'00')", 0),
        ("INSERT INTO dead VALUES (-7, 'jid', 'ERR', 1, 1.0, 0, x'00')", 0),
        ("DELETE FROM counts", 0),
        ("UPDATE counts SET jobs = 'many', proof = 3", 0),
        ("UPDATE counts SET jobs = 'many', last_id = 'x', proof = 0", 0),
        ("UPDATE counts SET last_id = 9223372036854775807, proof = 11 * 9223372036854775807 + 3 * jobs", 0),
    ],
)
@pytest.mark.parametrize("counted", [False, True])
async def test_no_row_stops_a_start_or_is_stuck(tmp_path: Path, harm: str, lost: int, *, counted: bool) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(5)])
        if counted:
            await settled(journal, [(await everything(journal))[0].id])
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.executescript(harm)
    kept = list(range(1 if counted else 0, 5))
    for added in (5, 6):
        async with running(tmp_path) as journal:
            await appended(journal, [payload(added)])
            kept.append(added)
            rows = await everything(journal)
            assert set(map(number_of, rows)) <= set(kept)
            assert (len(rows), journal.waiting, journal.dead) == (len(kept) - lost, len(kept) - lost, 0)
    async with running(tmp_path) as journal:
        await settled(journal, [row.id for row in await everything(journal)])
        await until(lambda: journal.waiting == 0)
    with Visitor(tmp_path) as visitor:
        assert (visitor.counts().jobs, visitor.counts().damaged) == (0, lost or harm.count("dead"))


async def test_a_newer_format_stops_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(0)])
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 3")
    async with running(tmp_path) as journal:  # the header alone is damage, not a newer format
        assert len(await everything(journal)) == 1
    store = Store(tmp_path)
    store.set_setting("format", "3")
    store.db.execute("PRAGMA user_version = 3")
    store.close()
    with pytest.raises(StartError, match=r"written by a later version \(format 3, this one knows 2\)"):
        opened(tmp_path)


async def test_a_rebuild_that_is_cut_short_is_done_again(tmp_path: Path) -> None:
    async with running(tmp_path) as journal:
        await appended(journal, [payload(n) for n in range(300)])
    (tmp_path / "journal.new").write_bytes(b"half of it")
    flip(tmp_path / "journal.db", 30, 1)
    flip(tmp_path / "journal.db", 0, 1)
    async with running(tmp_path) as journal:
        assert journal.recovery.set_aside is not None
        assert len(await everything(journal)) == 300
    os.rename(tmp_path / "journal.db", tmp_path / "journal.rebuilt")
    (tmp_path / "journal.db").write_bytes(b"the damaged one")
    async with running(tmp_path) as journal:
        assert len(await everything(journal)) == 300
