"""What somebody waits for passes what nobody waits for, however many jobs are queued."""

from __future__ import annotations

import json
import time

import pytest

from tests.conftest import FaktoryFactory, SidecarFactory
from tests.ledger.speed import fill
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Link, Toxiproxy

SLOW_LINK = 1_000
"""Kilobytes a second: some 900 of the backlog's jobs, so that it is still there when the test has ended."""
ANSWER_LIMIT = 4.0
WORKER = "backlog-worker"


class Scene:
    """A sidecar with a backlog on the disk, whose link has just come up."""

    def __init__(self, server: RealFaktory, link: Link, sidecar: SidecarProcess) -> None:
        self.server, self.link, self.sidecar = server, link, sidecar

    def open_link(self) -> None:
        self.link.enable()
        self.sidecar.wait_for_event("link_up", timeout=40)


@pytest.fixture(params=[100_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def scene(
    request: pytest.FixtureRequest,
    faktory_factory: FaktoryFactory,
    toxiproxy: Toxiproxy,
    sidecar_process: SidecarFactory,
) -> Scene:
    """With as many jobs as the parameter says."""
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=50)
    link.bandwidth(SLOW_LINK)
    link.disable()
    settings = {"SIDECAR_ACK": "disk", "SIDECAR_HTTP_LISTEN": "off", "SIDECAR_JOURNAL_MAX_BYTES": "2GiB"}
    # One connection's flood is 64 batches of 100 KB on the way to a link that takes ten a second: less in flight.
    sidecar = sidecar_process(server.url_at(link.port), settings | {"SIDECAR_PIPELINE_DEPTH": "8"})
    fill(sidecar.port, 0, request.param)
    return Scene(server, link, sidecar)


@pytest.mark.timeout(180)
def test_a_worker_acks_within_four_seconds_with_its_children_upstream(scene: Scene) -> None:
    with scene.server.client() as direct:
        direct.push({"jid": "the-parent", "jobtype": "Parent", "queue": "parents", "args": []})
    scene.open_link()
    with scene.sidecar.client(hello={"wid": WORKER}) as worker:
        parent = worker.fetch("parents")
        assert parent is not None
        children = [f"child-{number}-of-the-parent" for number in range(5)]
        for jid in children:
            assert worker.push({"jid": jid, "jobtype": "Child", "queue": "children", "args": []}) == "OK"
        started = time.monotonic()
        assert worker.ack(parent["jid"]) == "OK"
        assert time.monotonic() - started < ANSWER_LIMIT
        assert [job["jid"] for job in scene.server.stored("children")] == children
    assert_backlog_is_still_there(scene)


@pytest.mark.timeout(180)
def test_a_confirmed_job_does_not_wait_for_others(scene: Scene) -> None:
    scene.open_link()
    job = {"jid": "a-unique-one", "jobtype": "T", "queue": "unique", "args": [], "custom": {"unique_for": 60}}
    with scene.sidecar.client() as client:
        started = time.monotonic()
        assert client.push(job) == "OK"
        assert time.monotonic() - started < ANSWER_LIMIT
        assert [one["jid"] for one in scene.server.stored("unique")] == ["a-unique-one"]
    assert_backlog_is_still_there(scene)


@pytest.mark.timeout(180)
def test_a_barrier_waits_for_the_jobs_of_its_own_connection_only(scene: Scene) -> None:
    scene.open_link()
    with scene.sidecar.client() as client:
        for number in range(300):
            job = {"jid": f"mine-{number:05d}", "jobtype": "T", "queue": "mine", "args": []}
            client.send("PUSH " + json.dumps(job))
        assert [client.raw_reply() for _ in range(300)] == [b"+OK\r\n"] * 300
        started = time.monotonic()
        assert client.info()["faktory"]
        assert time.monotonic() - started < ANSWER_LIMIT
        assert len(scene.server.stored("mine")) == 300
    assert_backlog_is_still_there(scene)


@pytest.mark.timeout(180)
def test_a_flush_behind_too_much_is_refused_in_time_and_nothing_is_doubled(scene: Scene) -> None:
    """It waits for every job taken before it: that can't be in four seconds here, and it must not have gone."""
    scene.open_link()
    with scene.sidecar.client() as client, scene.sidecar.client() as other:
        started = time.monotonic()
        client.send("FLUSH")
        parked = [f"pushed-meanwhile-{number:03d}" for number in range(50)]
        for jid in parked:
            assert other.push({"jid": jid, "jobtype": "T", "queue": "meanwhile", "args": []}) == "OK"
        assert client.raw_reply().startswith(b"-ERR not sent: ")
        assert time.monotonic() - started < 5.0
        assert other.info()["faktory"]
        wait_for(lambda: len(scene.server.stored("meanwhile")) >= len(parked) or None, what="parked jobs arrive")
        assert [job["jid"] for job in scene.server.stored("meanwhile")] == parked
    assert_backlog_is_still_there(scene)


def assert_backlog_is_still_there(scene: Scene) -> None:
    """Otherwise the test proved nothing."""
    arrived = int(str(scene.server.redis("LLEN", "q:ledger")))
    assert 0 < arrived < 60_000, arrived
