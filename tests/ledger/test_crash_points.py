"""The process is killed at every step on the way of a job, one after the other on one journal; then it is counted.

Every life starts on what the one before left, so each kind of crash is also recovered from. jids tell in which life a
job was acknowledged.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.conftest import FaktoryFactory
from tests.ledger.book import Book, duplicates, upstream_jobs, wait_until
from tests.ledger.producers import BulkProducer, PipelinedProducer, SerialProducer
from tests.ledger.stop_at import POINTS, STEPS
from tests.real.faktory_server import RealFaktory
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Link, Toxiproxy

DEPTH, BATCH, SETTLE_BUFFER = 4, 20, 1_000
END_LIMIT = 60.0
"""Seconds within which the process must have come to its point."""
DRAIN = 60


def settings(server: RealFaktory, port: int, journal: Path) -> dict[str, str]:
    return {
        "SIDECAR_UPSTREAM": server.url_at(port),
        "SIDECAR_ACK": "disk",
        "SIDECAR_JOURNAL_DIR": str(journal),
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_PIPELINE_DEPTH": str(DEPTH),
        "BATCH_MAX_SIZE": str(BATCH),
        "SIDECAR_DRAIN_TIMEOUT_S": str(DRAIN),
    }


class Life:
    """One start of the sidecar, armed to be killed at a point, with producers."""

    def __init__(self, point: str, book: Book, directory: Path, environment: dict[str, str], link: Link) -> None:
        self.point = point
        self._link = link
        self.process = SidecarProcess(directory, environment, (point,), program="tests.ledger.stop_at")
        self._port: int | None = None
        kinds = (SerialProducer, PipelinedProducer, BulkProducer)
        self._producers = [
            kind(book, lambda: self._port, tag=f"{point}-{number}", pace=0.01) for number, kind in enumerate(kinds)
        ]

    def live(self) -> int:
        """Push until it dies; returns its exit code."""
        step = STEPS.get(self.point.partition("-")[2])
        if step is None or not step.at_start:
            try:
                self.process.wait_until_listening()
            except AssertionError:
                if self.process.exit_code != -signal.SIGKILL:
                    raise
                return -signal.SIGKILL  # what the life before left took it to its point at once
            self._port = self.process.port
        gives_back = step is not None and step.gives_back
        if gives_back:
            self._link.disable()
        for producer in self._producers:
            producer.start()
        if gives_back:
            self._fill_and_empty()
        if step is not None and step.at_end:
            wait_until(lambda: self.process.events("batch_enqueued") != [], "some jobs arrive", timeout=END_LIMIT)
            self.process.terminate()
            for producer in self._producers:
                producer.stop()
        try:
            return self.process.wait(END_LIMIT)
        finally:
            self._port = None
            if self.process.exit_code is None:
                self.process.kill()
            for producer in self._producers:
                producer.stop()
            for producer in self._producers:
                producer.join(20)

    def _fill_and_empty(self) -> None:
        """Let the journal grow while the link is down, then drain: there is space to give back."""
        time.sleep(1.5)
        for producer in self._producers:
            producer.stop()
        self._link.enable()


@pytest.mark.timeout(400)
def test_killed_at_every_step(faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, tmp_path: Path) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=20)
    environment = settings(server, link.port, tmp_path / "journal")
    book = Book()
    for point in POINTS:
        life = Life(point, book, tmp_path / point, environment, link)
        code = life.live()
        assert code == -signal.SIGKILL, f"{point}: {code}\n{life.process.log_text()[-2000:]}"
        assert not life.process.events("journal_damaged"), point
    last = SidecarProcess(tmp_path / "last", environment)
    last.wait_until_listening()
    doubts = [record["in_doubt"] for record in last.events("crash_in_doubt")]
    assert all(0 < doubt <= DEPTH * BATCH + SETTLE_BUFFER for doubt in doubts), doubts
    last.terminate()
    assert last.wait(DRAIN + 20) == 0
    assert last.events("stopped")[0]["message"] == "Stopped. No job is left behind."
    stored = upstream_jobs(server)
    assert book.false_replies(stored) == []
    assert len(book.accepted) > 20 * len(POINTS)
    assert duplicates(stored) <= len(POINTS) * (DEPTH * BATCH + SETTLE_BUFFER)


@pytest.mark.parametrize(
    "point", [f"{when}-{n}" for n, s in STEPS.items() if s.at_start for when in ("before", "after")]
)
def test_killed_in_the_first_start_of_all(faktory: RealFaktory, tmp_path: Path, point: str) -> None:
    """A journal that was only half made is no reason not to start."""
    if point.endswith("read-back"):
        pytest.skip("nothing is read back in a first start")
    environment = settings(faktory, faktory.port, tmp_path / "journal")
    process = SidecarProcess(tmp_path / "first", environment, (point,), program="tests.ledger.stop_at")
    try:
        assert process.wait(END_LIMIT) == -signal.SIGKILL
    finally:
        process.kill()
    second = SidecarProcess(tmp_path / "second", environment)
    try:
        second.wait_until_listening()
        with second.client() as client:
            assert client.push({"jid": "after-a-crash", "jobtype": "T", "args": []}) == "OK"
            client.info()
        assert not second.events("journal_damaged")
    finally:
        second.kill()
    assert [job["jid"] for job in faktory.stored()] == ["after-a-crash"]
