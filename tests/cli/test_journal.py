"""The `journal` commands: on a journal that nobody owns, beside a running one, and against the real Faktory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from sidecar.journal import DeadLetter, Journal
from tests.cli.command_line import sidecar
from tests.journal.running import appended, everything, running, settled, until
from tests.journal.test_damage import flip
from tests.real.faktory_server import RealFaktory

JOB = b'{"jid":"%s","jobtype":"T","queue":"q","args":[1],"retry":25,"created_at":"2026-11-23T19:00:00Z"}'
JIDS = [f"job-number-{number}" for number in range(1, 8)]
DEAD = JIDS[2:5]


def job(jid: str) -> bytes:
    """A job's JSON."""
    return JOB % jid.encode()


async def fill(journal: Journal) -> None:
    """Seven jobs, three of them dead letters."""
    await appended(journal, [job(jid) for jid in JIDS])
    buried = trio.Event()
    letters = [DeadLetter(JIDS.index(jid) + 1, jid, "ERR bad", 5, job(jid), 1.8e9) for jid in DEAD]
    journal.bury(letters, buried.set)
    await buried.wait()


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal that nobody owns."""
    directory = tmp_path_factory.mktemp("orphan") / "journal"

    async def main() -> None:
        async with running(directory) as journal:
            await fill(journal)

    trio.run(main)
    return directory


@pytest.fixture
def copy(orphan: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(orphan, tmp_path / "copy"))


def journal(directory: Path, *arguments: str, code: int = 0) -> str:
    """What a `journal` command printed."""
    ended = sidecar("journal", *arguments, environ={"SIDECAR_JOURNAL_DIR": str(directory)})
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def lines(directory: Path, *arguments: str) -> list[dict[str, Any]]:
    """The JSON lines that it printed."""
    return [json.loads(line) for line in journal(directory, *arguments).splitlines()]


def test_status_counts(orphan: Path) -> None:
    [found] = lines(orphan, "status", "--json")
    assert (found["waiting"], found["dead"], found["owner"]) == (4, 3, None)
    assert found["upstream"] == "tcp://upstream.example:7419"
    page = journal(orphan, "status")
    assert "4 jobs" in page
    assert "3 dead letters" in page


def test_lists_and_shows(orphan: Path) -> None:
    assert [row["jid"] for row in lines(orphan, "ls", "--json")] == [jid for jid in JIDS if jid not in DEAD]
    assert len(lines(orphan, "ls", "--json", "--limit", "2")) == 2
    assert "4 jobs wait, 2 shown" in journal(orphan, "ls", "--limit", "2")
    assert [row["reason"] for row in lines(orphan, "dead", "ls", "--json")] == ["ERR bad"] * 3
    [waiting] = lines(orphan, "show", JIDS[0], "--json")
    assert (waiting["state"], waiting["job"]) == ("waiting", json.loads(job(JIDS[0])))
    [letter] = lines(orphan, "dead", "show", DEAD[0], "--json")
    assert (letter["state"], letter["attempts"], letter["at"]) == ("dead", 5, "2027-01-15T08:00:00Z")
    assert "no nope in the journal" in journal(orphan, "show", "nope", code=1)


def test_export_is_what_would_be_sent(orphan: Path) -> None:
    assert journal(orphan, "export").encode().splitlines() == [job(jid) for jid in JIDS if jid not in DEAD]
    assert [row["job"]["jid"] for row in lines(orphan, "export", "--dead")] == DEAD


def test_looking_leaves_no_trace(orphan: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in orphan.iterdir())
    for arguments in (["status"], ["ls"], ["export"], ["verify"], ["dead", "ls"]):
        journal(orphan, *arguments)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in orphan.iterdir()) == before


def test_verify_finds_a_flipped_bit(copy: Path) -> None:
    assert "ok: 4 jobs and 3 dead letters" in journal(copy, "verify")
    content = (copy / "journal.db").read_bytes()
    flip(copy / "journal.db", content.index(job(JIDS[0])) + 30, 2)
    assert "1 jobs don't fit their seals" in journal(copy, "verify", code=1)
    assert "1 damaged ones were left out" in journal(copy, "export", code=1)


def test_dead_letters_of_an_orphan_are_put_back_at_the_next_start(copy: Path) -> None:
    assert "2 dead letters are to be sent again" in journal(copy, "dead", "retry", *DEAD[:2])
    assert "1 dead letters are deleted" in journal(copy, "dead", "discard", "--yes", DEAD[2])
    assert "no dead letter nope" in journal(copy, "dead", "discard", "--yes", "nope", code=1)
    assert "name the JIDs, or say --all" in journal(copy, "dead", "retry", code=2)

    async def main() -> None:
        async with running(copy) as found:
            assert (found.waiting, found.dead) == (6, 0)
            assert not found.recovery.unclean
            assert [row.payload for row in await everything(found)][-2:] == [job(jid) for jid in DEAD[:2]]

    trio.run(main)


async def test_all_of_it_works_beside_a_running_sidecar(tmp_path: Path) -> None:
    async def run(*arguments: str, code: int = 0) -> str:
        return await trio.to_thread.run_sync(lambda: journal(tmp_path, *arguments, code=code))

    async with running(tmp_path) as beside:
        await fill(beside)
        back: list[int] = []
        beside.requeued = back.extend
        assert json.loads(await run("status", "--json"))["owner"].startswith("pid ")
        assert len((await run("export")).splitlines()) == 4
        await run("verify")
        await run("dead", "retry", DEAD[0])
        await until(lambda: back == [8])
        assert [row.payload for row in (await beside.fetch(back))[0]] == [job(DEAD[0])]
        await run("dead", "discard", "--all", "--yes")
        await until(lambda: (beside.waiting, beside.dead) == (5, 0))
        assert "5 jobs" in await run("status", "--wait-empty", "--timeout", "0.1", code=75)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "status", "--wait-empty", "--timeout", "20")
            await settled(beside, range(1, 9))
        assert "in use by pid" in await run("send", "--upstream", "tcp://upstream.example:7419", code=1)


async def test_more_dead_letters_than_a_transaction_takes_are_all_put_back(tmp_path: Path) -> None:
    async with running(tmp_path) as beside:
        jobs = [job(f"job-number-{number}") for number in range(250)]
        await appended(beside, jobs)
        beside.bury(
            [DeadLetter(n + 1, f"job-number-{n}", "ERR bad", 1, payload, 1.0) for n, payload in enumerate(jobs)]
        )
        await until(lambda: beside.dead == 250)
        await trio.to_thread.run_sync(lambda: journal(tmp_path, "dead", "retry", "--all"))
        await until(lambda: (beside.waiting, beside.dead) == (250, 0))
        assert [row.payload for row in await everything(beside)] == jobs


def test_a_missing_journal_is_said(tmp_path: Path) -> None:
    assert f"there is no journal in {tmp_path}" in journal(tmp_path, "status", code=1)


def test_send_empties_an_orphan_into_upstream(copy: Path, faktory: RealFaktory) -> None:
    refused = journal(copy, "send", "--upstream", faktory.url, code=1)
    assert "holds 4 jobs for tcp://upstream.example:7419" in refused
    said = journal(copy, "send", "--upstream", faktory.url, "--adopt-journal", code=75)  # a dead letter stays
    assert "4 jobs left the journal" in said
    assert [stored["jid"] for stored in faktory.stored("q")] == [jid for jid in JIDS if jid not in DEAD]
    [found] = lines(copy, "status", "--json")
    assert (found["waiting"], found["dead"]) == (0, 3)
