"""After a crash the log says how many jobs may be upstream twice, and the ones that are stay within that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.conftest import FaktoryFactory, SidecarFactory
from tests.faults.relay import Relay
from tests.ledger.book import duplicates, upstream_jobs
from tests.ledger.speed import fill
from tests.real.polling import wait_for

DEPTH, BATCH, JOBS = 4, 50, 5_000


def test_in_doubt_after_a_crash_is_told_and_bounded(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, tmp_path: Path
) -> None:
    server = faktory_factory()
    settings = {
        "SIDECAR_ACK": "disk",
        "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal"),
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_PIPELINE_DEPTH": str(DEPTH),
        "BATCH_MAX_SIZE": str(BATCH),
    }
    with Relay(server.port) as relay:
        first = sidecar_process(server.url_at(relay.port), settings)
        first.wait_for_event("link_up")
        relay.mute = True  # Faktory stores what comes, and nobody hears of it
        fill(first.port, 0, JOBS)
        wait_for(lambda: len(upstream_jobs(server)) == DEPTH * BATCH, what="all that may be in flight is")
        first.kill()
        relay.mute = False
        second = sidecar_process(server.url_at(relay.port), settings)
        told = second.wait_for_event("crash_in_doubt")
        assert told["in_doubt"] == DEPTH * BATCH + 1_000
        assert told["waiting"] == JOBS
        second.terminate()
        assert second.wait() == 0
        stored = upstream_jobs(server)
        assert len(stored) == JOBS
        assert duplicates(stored) == DEPTH * BATCH


def test_a_stop_that_can_delete_nothing_tells_what_will_be_there_twice(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, tmp_path: Path
) -> None:
    server = faktory_factory()
    settings = {"SIDECAR_JOURNAL_DIR": str(tmp_path / "journal"), "SIDECAR_HTTP_LISTEN": "off"}
    sidecar = sidecar_process(server.url, settings)
    sidecar.wait_for_event("link_up")
    server.stall_redis()
    fill(sidecar.port, 0, 50)
    with closing(sqlite3.connect(tmp_path / "journal" / "journal.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        server.resume_redis()
        wait_for(lambda: len(upstream_jobs(server)) == 50, what="all are in Faktory")
        sidecar.terminate()
        assert sidecar.wait() == 0
    stopped = sidecar.events("stopped")[0]
    assert stopped["message"] == (
        "Stopped. 50 that Faktory has answered could not be deleted from the journal, and are sent twice."
    )
    assert (stopped["waiting"], stopped["in_doubt"], stopped["lost"]) == (0, 50, 0)
    again = sidecar_process(server.url, settings)
    assert again.wait_for_event("crash_in_doubt")["in_doubt"] == 50
    wait_for(lambda: upstream_jobs(server).total() == 100, what="all are sent twice")
