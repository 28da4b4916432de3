"""What went wrong in other store-and-forward queues, tried on this one as its users run it.

Named after what went wrong there. Those that need a disk that fails, or damaged files, are in tests/journal; the table
in docs/reliability.md says which test stands for which failure.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import trio

from sidecar.demo.embedded import Command, EmbeddedFaktory, Reply
from tests.conftest import SidecarFactory
from tests.demo.embedded_thread import in_thread
from tests.journal.running import appended, payload, running
from tests.ledger.book import duplicates, upstream_jobs, wait_until
from tests.ledger.speed import disk_use, fill, rss
from tests.real.faktory_server import RealFaktory
from tests.real.ports import free_port
from tests.real.raw_client import ServerError
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Link, Toxiproxy

MONTH = 30 * 86_400.0


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """One journal for all starts of a test."""
    return {"SIDECAR_ACK": "disk", "SIDECAR_HTTP_LISTEN": "off", "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal")}


@pytest.fixture
def link(faktory: RealFaktory, toxiproxy: Toxiproxy) -> Iterator[Link]:
    """A link to the Faktory of this module that is down."""
    link = toxiproxy.link(faktory.port)
    link.disable()
    yield link
    link.enable()


def stopped(sidecar: SidecarProcess) -> str:
    """SIGTERM, and what it says at the end."""
    sidecar.terminate()
    assert sidecar.wait() == 0
    return str(sidecar.events("stopped")[0]["message"])


def test_a_lock_that_is_kept_prevents_the_restart(
    faktory: RealFaktory, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    first = sidecar_process(faktory.url, settings)
    second = sidecar_process(faktory.url, settings, wait=False)
    assert second.wait() == 1
    assert f"in use by pid {first.process.pid} " in second.log_text(), "the holder is named"
    first.kill()
    sidecar_process(faktory.url, settings)


def test_in_flight_jobs_are_deleted_at_shutdown_while_upstream_is_down(
    faktory: RealFaktory, link: Link, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    first = sidecar_process(faktory.url_at(link.port), settings)
    fill(first.port, 0, 3_000)
    assert stopped(first) == "Stopped. 3,000 jobs stay in the journal and leave at the next start."
    link.enable()
    second = sidecar_process(faktory.url_at(link.port), settings)
    assert stopped(second) == "Stopped. No job is left behind."
    stored = upstream_jobs(faktory)
    assert (len(stored), duplicates(stored)) == (3_000, 0)


def test_the_first_hours_of_a_long_outage_are_gone(
    faktory: RealFaktory, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    """There is no age limit: jobs that were appended a month ago are sent."""

    async def long_ago() -> None:
        now = time.time() - MONTH
        with mock.patch("sidecar.journal.journal.time.time", return_value=now):
            async with running(Path(settings["SIDECAR_JOURNAL_DIR"]), upstream=faktory.url) as journal:
                await appended(journal, [payload(number) for number in range(100)])

    trio.run(long_ago)
    sidecar = sidecar_process(faktory.url, settings)
    assert stopped(sidecar) == "Stopped. No job is left behind."
    assert len(faktory.stored()) == 100


def test_a_backlog_above_a_lowered_capacity_blocks_the_start(
    faktory: RealFaktory, link: Link, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    first = sidecar_process(faktory.url_at(link.port), settings)
    fill(first.port, 0, 60_000)
    first.kill()
    small = settings | {"SIDECAR_JOURNAL_MAX_BYTES": "64MiB"}
    second = sidecar_process(faktory.url_at(link.port), small)
    with second.client() as client:
        with pytest.raises(ServerError, match=r"^ERR not sent: journal full: "):
            client.push({"jid": "too-much-now", "queue": "ledger", "jobtype": "T", "args": ["too-much-now"]})
        link.enable()
        wait_until(lambda: len(upstream_jobs(faktory)) == 60_000, "the backlog drains", timeout=50)
        again = {"jid": "room-again-now", "queue": "ledger", "jobtype": "T", "args": ["room-again-now"]}
        assert client.push(again) == "OK"


def test_delivered_jobs_are_never_deleted(
    faktory: RealFaktory, link: Link, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    directory = Path(settings["SIDECAR_JOURNAL_DIR"])
    sidecar = sidecar_process(faktory.url_at(link.port), settings)
    fill(sidecar.port, 0, 30_000)
    assert disk_use(directory) > 40
    link.enable()
    wait_until(lambda: len(upstream_jobs(faktory)) == 30_000, "all arrive", timeout=40)
    wait_until(lambda: disk_use(directory) < 20, "the disk's space is given back", timeout=20)


def test_full_means_a_silent_drop(
    faktory: RealFaktory, link: Link, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    sidecar = sidecar_process(faktory.url_at(link.port), settings | {"SIDECAR_JOURNAL_MAX_BYTES": "64MiB"})
    accepted, refusal = 0, b""
    with sidecar.client() as client:
        for number in range(1_000):
            jids = [f"full-{number:04d}-{n:02d}" for n in range(20)]
            jobs = [{"jid": jid, "queue": "ledger", "jobtype": "T", "args": [jid, "x" * 9_000]} for jid in jids]
            refusal = client.raw_call("PUSHB " + json.dumps(jobs))
            if refusal.startswith(b"-"):
                break
            accepted += len(jobs)
    assert refusal.startswith(b"-ERR not sent: journal full: "), refusal
    assert accepted > 1_000
    assert sidecar.events("journal_full"), "and the log says so"
    link.enable()
    wait_until(lambda: len(upstream_jobs(faktory)) >= accepted, "what was acknowledged arrives", timeout=30)
    assert len(upstream_jobs(faktory)) == accepted, "and nothing of what was refused"


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6, 1.0])
def test_a_torn_write_makes_it_ignore_signals(
    sidecar_process: SidecarFactory, settings: dict[str, str], moment: float
) -> None:
    """SIGTERM ends it whatever state its files are in, while it recovers and after."""
    nobody = f"tcp://localhost:{free_port()}"
    first = sidecar_process(nobody, settings)
    fill(first.port, 0, 5_000)
    first.kill()
    wal = Path(settings["SIDECAR_JOURNAL_DIR"]) / "journal.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size * 2 // 3 + 17)
        file.seek(-40, os.SEEK_END)
        file.write(b"\xa5" * 40)
    second = sidecar_process(nobody, settings, wait=False)
    time.sleep(moment)
    second.terminate()
    assert second.wait(15) in (0, -15)


def test_the_backlog_is_loaded_at_the_start(
    faktory: RealFaktory, link: Link, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    first = sidecar_process(faktory.url_at(link.port), settings)
    fill(first.port, 0, 200_000)
    assert rss(first) < 150
    first.kill()
    second = sidecar_process(faktory.url_at(link.port), settings)
    assert rss(second) < 100, "200 MB of jobs"


def test_dead_letters_are_deleted_at_the_restart(sidecar_process: SidecarFactory, settings: dict[str, str]) -> None:
    async def refuse(command: Command) -> Reply | None:
        return Reply(b"-ERR invalid JSON: no\r\n") if command.verb in ("PUSH", "PUSHB") else None

    server = EmbeddedFaktory(intercept=refuse)
    with in_thread(server):
        for start in range(3):
            sidecar = sidecar_process(server.url, settings)
            if not start:
                with sidecar.client() as client:
                    assert client.push({"jid": "dead-for-good", "jobtype": "T", "args": []}) == "OK"
                sidecar.wait_for_event("job_dead")
            assert stopped(sidecar) == "Stopped. No job is left behind."

    async def dead() -> int:
        async with running(Path(settings["SIDECAR_JOURNAL_DIR"]), upstream="any", adopt=True) as journal:
            return journal.dead

    assert trio.run(dead) == 1


@pytest.mark.parametrize("ack", ["disk", "memory"])
def test_the_last_partial_batch_is_lost_or_doubled_at_the_end(
    faktory: RealFaktory, sidecar_process: SidecarFactory, settings: dict[str, str], ack: str
) -> None:
    """A batch that is not full and would linger for a minute leaves at once when it is asked to stop."""
    sidecar = sidecar_process(faktory.url, settings | {"SIDECAR_ACK": ack, "BATCH_MAX_DELAY_MS": "60000"})
    sidecar.wait_for_event("link_up")
    with sidecar.client() as client:
        for number in range(7):
            job = {"jid": f"partial-{number}", "queue": "ledger", "jobtype": "T", "args": [f"partial-{number}"]}
            assert client.push(job) == "OK"
    started = time.monotonic()
    assert stopped(sidecar) == "Stopped. No job is left behind."
    assert time.monotonic() - started < 10
    assert upstream_jobs(faktory) == {f"partial-{number}": 1 for number in range(7)}
