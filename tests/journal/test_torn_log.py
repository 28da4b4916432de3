"""A write-ahead log whose last commit is there in parts: nothing that was acknowledged before it is lost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

from sidecar.journal.store import Addition, Change, Store
from sidecar.journal.wal import FRAME, HEADER, scan
from tests.journal.running import everything, number_of, payload, running
from tests.journal.test_damage import flip

STEP = FRAME.size + 4096
MANY = 10  # choices of frames of one commit that are tried, where there are more


@dataclass
class Commit:
    """A directory before and after a commit, and the log's frames that it wrote."""

    before: Path
    after: Path
    first: int
    last: int
    kept: set[int]
    added: set[int]

    def torn(self, target: Path, missing: tuple[int, ...], *, part: int = 0) -> None:
        """Makes the directory as of a power failure during the commit: frames are missing, but for their first bytes.

        Args:
            part: bytes of each that are there.
        """
        shutil.copytree(self.after, target)
        old = (self.before / "journal.db-wal").read_bytes()
        with (target / "journal.db-wal").open("r+b") as log:
            for frame in missing:
                start = HEADER.size + frame * STEP + part
                log.seek(start)
                log.write(old[start : HEADER.size + (frame + 1) * STEP].ljust(STEP - part, b"\0"))


class Writing:
    """A journal that is written to without a thread, and copied between two commits."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.store = Store(directory)
        self.kept: set[int] = set()
        self._next = 1

    def add(self, count: int) -> None:
        """Commits jobs whose numbers are their ids."""
        numbers = range(self._next, self._next + count)
        self._next += count
        payloads = [payload(number, 300) for number in numbers]
        self.store.commit(Change(additions=[Addition(numbers.start, payloads, [1] * count, 1e9)]))
        self.kept.update(numbers)

    def settle(self, ids: range) -> None:
        """Commits their deletion."""
        self.store.commit(Change(gone=list(ids)))
        self.kept.difference_update(ids)

    def copy(self, target: Path) -> Path:
        """The files as they are, as of an unclean stop."""
        shutil.copytree(self._directory, target)
        (target / "owner").write_text("{}")
        return target


def commits(room: Path, *, again: bool) -> list[Commit]:
    """Commits of all sorts. `again`: in a log that has been used before, so that stale frames stand in their places."""
    found: list[Commit] = []
    writing = Writing(room / "origin")
    for _ in range(30 if again else 3):
        writing.add(20)
    if again:
        writing.store.checkpoint(truncate=False)
    writing.add(5)
    for count in (1, 3, 40, 200):
        before, known = writing.copy(room / f"before-{count}"), set(writing.kept)
        writing.add(count)
        after = writing.copy(room / f"after-{count}")
        first, last = (scan((path / "journal.db-wal").read_bytes()).sound for path in (before, after))
        found.append(Commit(before, after, first, last, known, writing.kept - known))
    writing.store.close()
    return found


def choices(commit: Commit, dice: random.Random) -> Iterator[tuple[int, ...]]:
    """Frames of a commit that are missing, the last one never: else it wasn't there at all."""
    frames = range(commit.first, commit.last - 1)
    every = [missing for count in range(1, len(frames) + 1) for missing in combinations(frames, count)][: 1 << 12]
    yield from every if len(every) <= MANY else dice.sample(every, MANY)


async def numbers_in(directory: Path) -> list[int]:
    """What a start finds; each is whole and there once."""
    async with running(directory) as journal:
        rows = await everything(journal)
        assert all(row.payload == payload(number_of(row), 300) for row in rows)
        numbers = [number_of(row) for row in rows]
        assert len(numbers) == len(set(numbers)) == journal.waiting
        return numbers


@pytest.mark.parametrize("part", [0, FRAME.size, 512])
@pytest.mark.parametrize("again", [False, True])
async def test_a_commit_that_the_power_tore_takes_no_other_with_it(tmp_path: Path, *, again: bool, part: int) -> None:
    dice, tried = random.Random(3), 0
    for commit in commits(tmp_path, again=again):
        for missing in choices(commit, dice):
            target = tmp_path / "torn"
            commit.torn(target, missing, part=part)
            numbers = set(await numbers_in(target))
            assert commit.kept <= numbers, f"{sorted(commit.kept - numbers)} are gone, without frames {missing}"
            assert numbers <= commit.kept | commit.added
            shutil.rmtree(target)
            tried += 1
    assert tried > MANY


async def test_a_bit_of_the_last_commit_that_flipped_costs_no_more_than_its_row(tmp_path: Path) -> None:
    dice = random.Random(5)
    for commit in commits(tmp_path, again=True):
        for _ in range(12):
            target = tmp_path / "flipped"
            shutil.copytree(commit.after, target)
            frame = dice.randrange(commit.first, commit.last)
            place = HEADER.size + frame * STEP + FRAME.size + dice.randrange(4096)
            flip(target / "journal.db-wal", place, dice.randrange(8))
            async with running(target) as journal:
                numbers = {number_of(row) for row in await everything(journal)}
                assert commit.kept <= numbers, f"byte {place}"
                told = journal.recovery.unknown_bytes or journal.recovery.damaged
                assert told or commit.added <= numbers or frame == commit.last - 1, f"byte {place}"
            shutil.rmtree(target)


async def test_what_rotted_further_ahead_is_read_from_before_and_said(tmp_path: Path) -> None:
    """The root of the jobs is what rots, so that nothing can be read behind it."""
    writing = Writing(tmp_path / "origin")
    writing.add(400)
    writing.store.checkpoint(truncate=False)
    sql = "SELECT rootpage FROM sqlite_master WHERE name = 'jobs'"
    ((root,),) = writing.store.db.execute(sql).fetchall()
    for _ in range(150):
        writing.add(20)
    writing.settle(range(1, 11))
    for _ in range(3):
        writing.add(1)
    target = writing.copy(tmp_path / "rotten")
    writing.store.close()
    content = bytearray((target / "journal.db-wal").read_bytes())
    frames = [HEADER.size + number * STEP for number in range(scan(bytes(content)).frames)]
    of_root = [start for start in frames if int.from_bytes(content[start : start + 4], "big") == root]
    content[of_root[-1] + FRAME.size : of_root[-1] + FRAME.size + 8] = b"\xff" * 8
    (target / "journal.db-wal").write_bytes(content)
    assert not scan(bytes(content)).unsynced
    async with running(target) as journal:
        numbers = {number_of(row) for row in await everything(journal)}
        assert journal.recovery.earlier > 0
        assert journal.recovery.unknown_bytes > 0
        assert set(range(11, 401)) <= numbers
