"""The process or the operating system ends at any step: every acknowledged job is there at the next start."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest
import trio

from tests.journal.conftest import Scenario
from tests.journal.recorded import Medium, note_files
from tests.journal.running import appended, everything, number_of, payload, running
from tests.journal.test_damage import flip


class Ledger:
    """What must be there, by the acknowledgements so far; `sound`: and nothing may be taken for damage."""

    def __init__(self, *, sound: bool = True) -> None:
        self.sound = sound
        self.owed: set[int] = set()
        self.ever: set[int] = set()

    def read(self, lines: bytes) -> None:
        """Takes lines of an `acks` file."""
        for line in lines.split():
            number = int(line[1:])
            if line.startswith(b"+"):
                self.owed.add(number)
                self.ever.add(number)
            else:
                self.owed.discard(number)

    def check(self, directory: Path, what: str) -> None:
        """Opens the journal and compares; every job that is there is whole."""

        async def main() -> None:
            async with running(directory) as journal:
                rows = await everything(journal)
                numbers = [number_of(row) for row in rows]
                assert len(numbers) == len(set(numbers)), what
                missing = self.owed.difference(numbers)
                assert not missing, f"{what}: {sorted(missing)} were acknowledged and are gone"
                assert journal.waiting == len(rows), what
                assert journal.recovery.damaged == 0, what
                if self.sound:
                    assert journal.recovery.set_aside is None, what

        trio.run(main)


def run_for(scenario: Scenario, directory: Path, *, seconds: float, record: bool) -> None:
    """A producer that is killed with SIGKILL after some seconds."""
    with scenario.start("producer", directory, record=record) as process:
        acks = directory.parent / "acks"
        before = acks.stat().st_size if acks.exists() else 0
        deadline = time.monotonic() + 20
        while not (acks.exists() and acks.stat().st_size > before) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
    if record:
        note_files(scenario.record, directory)


@pytest.mark.slow
@pytest.mark.parametrize("reordered", [False, True])
def test_after_a_power_failure_every_acknowledged_job_is_there(
    scenario: Scenario, tmp_path: Path, *, reordered: bool
) -> None:
    directory = tmp_path / "journal"
    for seconds in (0.5, 0.3, 0.7):
        run_for(scenario, directory, seconds=seconds, record=True)
    record = scenario.record.read_bytes()
    dice = random.Random(11)
    total = sum(1 for _ in Medium(directory).calls(record))
    points = set(dice.sample(range(total), 60))
    medium, ledger = Medium(directory), Ledger(sound=not reordered)
    for number, (kind, path, data) in enumerate(medium.calls(record)):
        if kind == "w" and path == str(tmp_path / "acks"):
            ledger.read(data)
        if number in points:
            left = tmp_path / f"left-{number}"
            medium.power_fails(left, dice if reordered else None)
            ledger.check(left, f"power fails after call {number} of {total}")
            shutil.rmtree(left)
    assert len(ledger.ever) > 500


@pytest.mark.slow
def test_kill_9_in_a_loop_loses_nothing(scenario: Scenario, tmp_path: Path) -> None:
    directory, dice, ledger = tmp_path / "journal", random.Random(5), Ledger()
    for _ in range(8):
        run_for(scenario, directory, seconds=dice.random() / 2, record=False)
    ledger.read((tmp_path / "acks").read_bytes())
    ledger.check(directory, "after 8 kills")
    assert len(ledger.ever) > 500


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", ["write", "sync", "truncate", "unlink"])
def test_killed_at_each_step_of_a_life(scenario: Scenario, tmp_path: Path, call: str) -> None:
    step, number, ended = {"write": 97, "sync": 5, "truncate": 1, "unlink": 1}[call], 1, False
    while not ended:
        room = tmp_path / f"at-{number}"
        room.mkdir()
        scenario.control.write_text(f"{call} /journal/ kill {number}\n")
        with scenario.start("life", room / "journal") as process:
            output, _ = process.communicate(timeout=50)
        ended = process.returncode == 0
        assert process.returncode in (0, 137), output
        ledger = Ledger()
        if (room / "acks").exists():
            ledger.read((room / "acks").read_bytes())
        ledger.check(room / "journal", f"killed at {call} {number}")
        shutil.rmtree(room)
        number += step
    assert number > step


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", ["write", "sync", "rename", "unlink"])
def test_killed_at_each_step_of_a_rebuild(scenario: Scenario, tmp_path: Path, call: str) -> None:
    source = tmp_path / "source"

    async def fill() -> None:
        async with running(source) as journal:
            for start in range(0, 300, 100):
                await appended(journal, [payload(n, 300) for n in range(start, start + 100)])

    trio.run(fill)
    flip(source / "journal.db", 3, 1)
    (source / "reserve").unlink()
    ledger = Ledger(sound=False)
    ledger.owed = set(range(300))
    step, number, ended = {"write": 11}.get(call, 1), 1, False
    while not ended:
        directory = tmp_path / f"at-{number}" / "journal"
        shutil.copytree(source, directory)
        scenario.control.write_text(f"{call} /journal/ kill {number}\n")
        with scenario.start("opening", directory) as process:
            output, _ = process.communicate(timeout=50)
        ended = process.returncode == 0
        assert process.returncode in (0, 137), output
        ledger.check(directory, f"killed at {call} {number}")
        shutil.rmtree(directory)
        number += step
    assert number > step
