"""The fixtures themselves: what other tests take for granted about the real programs."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable

import pytest

from tests.conftest import FaktoryFactory
from tests.real.faktory_server import Certificate, RealFaktory
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient, ServerError
from tests.real.toxiproxy_server import Toxiproxy

pytestmark = pytest.mark.real

JOB = {"jid": "parts-0001", "jobtype": "Add", "args": [1, 2], "queue": "default"}


def test_a_job_is_pushed_fetched_and_acknowledged(faktory: RealFaktory) -> None:
    with faktory.client(hello={"wid": "parts-worker"}) as worker:
        assert worker.push(JOB) == "OK"
        assert [job["jid"] for job in faktory.stored()] == ["parts-0001"]
        fetched = worker.fetch("default")
        assert fetched is not None
        assert fetched["args"] == [1, 2]
        assert worker.ack("parts-0001") == "OK"
    assert faktory.info()["faktory"]["total_processed"] == 1


def test_the_next_test_finds_the_server_empty(faktory: RealFaktory) -> None:
    assert faktory.stored() == []
    assert faktory.info()["faktory"]["total_processed"] == 0


def test_a_version_is_the_pinned_one(faktory: RealFaktory) -> None:
    assert faktory.info()["server"]["faktory_version"] == "1.10.0"


def test_a_password_is_demanded(faktory_factory: FaktoryFactory) -> None:
    server = faktory_factory(password="s3cret/with:odd@signs")
    with pytest.raises(ServerError, match="Invalid password"):
        RawClient(server.port, "wrong")
    assert server.info()["faktory"]["queues"] == {}
    assert server.url.startswith("tcp://:s3cret%2Fwith%3Aodd%40signs@localhost:")


def test_tls_is_served_with_the_given_certificate(faktory_factory: FaktoryFactory, certificate: Certificate) -> None:
    server = faktory_factory(tls=certificate)
    assert server.url.startswith("tcp+tls://localhost:")
    with server.client() as client:
        assert client.push(JOB) == "OK"
    assert "parts-0001" in server.web("/queues/default")
    with pytest.raises(ssl.SSLCertVerificationError):
        server.client(tls=ssl.create_default_context())


def test_jobs_survive_a_restart_on_the_same_port(faktory_factory: FaktoryFactory) -> None:
    server = faktory_factory()
    port = server.port
    with server.client() as client:
        client.push(JOB)
    server.restart()
    assert server.port == port
    assert [job["jid"] for job in server.stored()] == ["parts-0001"]


def test_a_kill_leaves_no_redis_behind(faktory_factory: FaktoryFactory) -> None:
    server = faktory_factory()
    server.kill()
    assert not server.running
    server.start()
    assert server.running


@pytest.mark.slow
def test_a_stalled_redis_makes_pushes_fail_and_comes_back(faktory_factory: FaktoryFactory) -> None:
    server = faktory_factory()
    with server.client() as client:
        client.push(JOB)
        server.stall_redis()
        with pytest.raises(ServerError, match=r"deadline|timeout"):
            client.push(JOB)
        server.resume_redis()
        assert client.push(JOB) == "OK"


def test_a_worker_is_told_to_be_quiet(faktory: RealFaktory) -> None:
    with faktory.client(hello={"wid": "parts-quiet"}) as worker:
        assert worker.beat("parts-quiet") == "OK"
        faktory.signal_worker("parts-quiet", "quiet")
        assert json.loads(worker.beat("parts-quiet") or "") == {"state": "quiet"}


def test_a_link_delays_and_can_be_taken_down(
    faktory: RealFaktory, toxiproxy: Toxiproxy, client: Callable[..., RawClient]
) -> None:
    link = toxiproxy.link(faktory.port, round_trip=50)
    connection = client(link.port)
    started = time.monotonic()
    assert connection.push(JOB) == "OK"
    assert time.monotonic() - started >= 0.045
    link.disable()
    wait_for(lambda: connection.raw_reply() == b"", what="the link closes")
    with pytest.raises(ConnectionError):
        client(link.port)
    link.enable()
    assert client(link.port).push(JOB) == "OK"


def test_a_link_resets(faktory: RealFaktory, toxiproxy: Toxiproxy, client: Callable[..., RawClient]) -> None:
    link = toxiproxy.link(faktory.port)
    connection = client(link.port)
    link.reset_peer()
    connection.send("INFO")
    with pytest.raises(ConnectionError):
        connection.reply()
    link.heal()
    assert client(link.port).push(JOB) == "OK"
