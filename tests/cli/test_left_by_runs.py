"""What `run`s left beside a journal: each kind of it is sent, or named with what becomes of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from sidecar.journal import DeadLetter
from sidecar.journal.visitor import put_back
from tests.cli.command_line import sidecar
from tests.journal.running import appended, running
from tests.journal.test_damage import flip
from tests.real.faktory_server import RealFaktory
from tests.real.sidecar_command import clean_environment

JOB = b'{"jid":"%s","jobtype":"T","queue":"default","args":[1]}'


def leave(directory: Path, jids: list[bytes], *, upstream: str, dead: int = 0, killed: bool = False) -> None:
    """A journal as a `run` leaves it, its first jobs dead letters."""
    room = directory.parent / "room" / directory.name

    async def main() -> None:
        async with running(room, upstream=upstream) as journal:
            await appended(journal, [JOB % jid for jid in jids])
            letters = [DeadLetter(n + 1, jids[n].decode(), "ERR bad", 5, JOB % jids[n], 1.8e9) for n in range(dead)]
            buried = trio.Event()
            journal.bury(letters, buried.set)
            await buried.wait()
            if killed:
                shutil.copytree(room, directory)
        if not killed:
            shutil.copytree(room, directory)

    trio.run(main)


def words(text: str) -> str:
    """A text without the places where it was folded."""
    return "".join(text.split())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where default journal directories are."""
    return tmp_path / ".local" / "state" / "faktory-sidecar"


def test_each_is_sent_or_named(faktory: RealFaktory, tmp_path: Path, state: Path) -> None:
    upstream = f"tcp://localhost:{faktory.port}"
    slots = [state / f"localhost_{faktory.port}.run-{number}" for number in range(9)]
    leave(slots[1], [], upstream=upstream)
    leave(slots[2], [b"killed-job"], upstream=upstream, killed=True)
    leave(slots[3], [b"damaged-job"], upstream=upstream)
    flip(slots[3] / "journal.db", 0, 0)
    leave(slots[4], [b"foreign-job"], upstream="tcp://elsewhere:7419")
    leave(slots[5], [b"dead-letter", b"retried-job"], upstream=upstream, dead=2)
    put_back(slots[5], [2])
    leave(slots[6], [b"flagged-foreign"], upstream="tcp://elsewhere:7419", dead=1)
    put_back(slots[6], [1])
    (slots[7] / "journal.db").mkdir(parents=True)  # can't be opened, whatever is tried
    leave(slots[8], [b"last-job"], upstream=upstream)
    environ = {"SIDECAR_UPSTREAM": faktory.url, "HOME": str(tmp_path), "XDG_STATE_HOME": ""}

    for command in (("check",), ("journal", "status")):
        ended = sidecar(*command, environ=environ)
        assert ended.returncode == 0, ended.stderr
        told = words(ended.stdout)
        assert "run-1:" not in told  # there is nothing in it
        for number in (2, 3, 7):
            assert words(f"run-{number}: what a run left; the next run or serve looks what it is, and sends it") in told
        assert words("run-5: what a run left, 0 jobs, 1 dead letters to be sent again; the next run") in told
        assert words("run-8: what a run left, 1 jobs; the next run or serve sends it") in told
        assert words(f"2 dead letters: faktory-sidecar journal dead ls --journal-dir {slots[5]}") in told
    told = words(sidecar("check", environ=environ).stdout)
    assert words(f"run-4: what a run left, 1 jobs; for tcp://elsewhere:7419: it is not sent to {upstream}") in told

    run = [sys.executable, "-m", "sidecar", "run", "--", sys.executable, "-c", ""]
    ended = subprocess.run(run, env=clean_environment(environ), capture_output=True, text=True, check=True, timeout=60)
    assert sorted(job["jid"] for job in faktory.stored()) == ["damaged-job", "killed-job", "last-job", "retried-job"]
    assert f"{slots[5].name}: 1 dead letters: faktory-sidecar journal dead ls --journal-dir {slots[5]}" in ended.stderr
    for slot in (slots[4], slots[6]):
        assert f"{slot} holds 1 jobs for tcp://elsewhere:7419, upstream is {upstream}" in ended.stderr
    assert f"journal {slots[7]} can't be opened" in ended.stderr
    told = words(sidecar("check", environ=environ).stdout)
    assert [f"run-{number}:" in told for number in range(1, 9)] == [number in (4, 5, 6, 7) for number in range(1, 9)]
