"""Bytes flipped, cut off and torn at any place of any file: the start succeeds, nothing wrong is sent, all is counted."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from sidecar.journal import DeadLetter
from sidecar.journal.journal import Journal
from tests.journal.running import appended, everything, number_of, opened, payload, running, settled, until

JOBS = 400


def fill(directory: Path, *, jobs: int = JOBS, wal: bool) -> None:
    """A journal of an unclean stop, with its last jobs in the WAL or all of them in the database."""
    room = directory.parent / "origin"

    async def main() -> None:
        async with running(room) as journal:
            for start in range(0, jobs, 20):
                await appended(journal, [payload(n, 300) for n in range(start, start + 20)])
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


def damaged_copies(
    tmp_path: Path, name: str, rounds: int, harm: Callable[[Path, random.Random], str], *, wal: bool
) -> None:
    """Harms a copy of one file again and again; the journal must open, and must know when something is missing."""
    source = tmp_path / "source"
    fill(source, wal=wal)
    dice = random.Random(7)
    for number in range(rounds):
        directory = tmp_path / f"copy-{number}"
        shutil.copytree(source, directory)
        what = harm(directory / name, dice)
        journal, numbers = trio.run(contents, directory)
        expected = set(range(JOBS)) - ({2} if not wal else set())
        lost = len(expected) - len(numbers)
        told = journal.recovery.damaged + journal.damaged
        assert set(numbers) <= expected, what
        assert len(numbers) == len(set(numbers)), what
        assert lost <= told or journal.recovery.unknown_bytes or journal.missing, f"{what}: {lost} lost, {told} told"
        shutil.rmtree(directory)


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
@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "owner", "reserve"])
def test_harm_to_any_file(tmp_path: Path, name: str, harm: Callable[[Path, random.Random], str]) -> None:
    damaged_copies(tmp_path, name, 25, harm, wal=name == "journal.db-wal")
