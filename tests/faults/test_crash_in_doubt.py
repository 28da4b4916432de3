"""After a crash the log says how many jobs may be upstream twice, and the ones that are stay within that."""

from __future__ import annotations

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
