"""Producers of other languages, by what they put on the wire, on every way to the real Faktory."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.clients.dialects import DIALECTS, RUBY, RUST, Dialect, greeting
from tests.e2e.conftest import Route
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient, ServerError

pytestmark = pytest.mark.real

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def job(number: int) -> dict[str, Any]:
    """A job as small as they come."""
    return {"jid": uuid.uuid4().hex, "jobtype": "Record", "queue": "dialects", "args": [number, "ü"], "retry": 25}


def assert_stored(route: Route, jids: list[str]) -> None:
    """These jobs, in this order, and no others are in the queue."""
    wait_for(lambda: len(route.faktory.stored("dialects")) >= len(jids), what="the jobs are in Faktory")
    assert [stored["jid"] for stored in route.faktory.stored("dialects")] == jids


@each_dialect
def test_jobs_are_taken(route: Route, dialect: Dialect) -> None:
    jobs = [job(number) for number in range(5)]
    client = dialect.connect(route.port, route.password)
    for one in jobs:
        client.send(dialect.push_line(one))
        assert client.raw_reply() == b"+OK\r\n"
    if dialect.says_end:
        client.send(b"END" + dialect.end)
        assert client.raw_reply() == b""
    client.close()
    assert_stored(route, [one["jid"] for one in jobs])


@each_dialect
def test_everything_in_one_packet_is_answered_before_the_close(route: Route, dialect: Dialect) -> None:
    jobs = [job(number) for number in range(50)]
    with RawClient(route.port, greet=False) as client:
        hello = dialect.hello_line(greeting(client), route.password)
        client.send(hello + b"".join(dialect.push_line(one) for one in jobs) + b"END" + dialect.end)
        assert [client.raw_reply() for _ in range(51)] == [b"+OK\r\n"] * 51
        assert client.raw_reply() == b""
    assert_stored(route, [one["jid"] for one in jobs])


@each_dialect
def test_pushes_are_answered_after_a_half_close(route: Route, dialect: Dialect) -> None:
    jobs = [job(number) for number in range(20)]
    with dialect.connect(route.port, route.password) as client:
        client.send(b"".join(dialect.push_line(one) for one in jobs))
        client.half_close()
        assert [client.raw_reply() for _ in range(20)] == [b"+OK\r\n"] * 20
        assert client.raw_reply() == b""
    assert_stored(route, [one["jid"] for one in jobs])


def test_a_jid_that_is_sent_again_is_a_second_job(route: Route) -> None:
    one = job(1)
    for _ in range(2):  # Ruby does that on a new connection when a reply was late
        with RUBY.connect(route.port, route.password) as client:
            client.send(RUBY.push_line(one))
            assert client.reply() == "OK"
    assert_stored(route, [one["jid"]] * 2)


def test_an_unterminated_last_line_is_no_command(route: Route) -> None:
    whole, cut = job(1), job(2)
    with RUST.connect(route.port, route.password) as client:
        client.socket.sendall(RUST.push_line(whole) + RUST.push_line(cut).rstrip())
        client.half_close()
        assert client.raw_reply() == b"+OK\r\n"
        assert client.raw_reply() == b""
    assert_stored(route, [whole["jid"]])


def test_the_server_speaks_for_itself_on_commands_that_carry_no_job(route: Route) -> None:
    with RUST.connect(route.port, route.password) as client:
        assert client.info()["server"]["faktory_version"] == "1.10.0"
        with pytest.raises(ServerError, match="unknown command BOGUS"):
            client.call("BOGUS something")
        with pytest.raises(ServerError, match="jobs must have a jobtype"):
            client.push({"jid": uuid.uuid4().hex, "args": []})


@each_dialect
def test_a_wrong_password_is_refused(route: Route, dialect: Dialect) -> None:
    if route.password is None:
        with dialect.connect(route.port, None) as client:
            assert client.info()["faktory"]["total_enqueued"] == 0
        return
    with RawClient(route.port, greet=False) as client:
        client.send(dialect.hello_line(greeting(client), "wrong"))
        assert client.raw_reply() == b"-ERR Invalid password\r\n"
        assert client.raw_reply() == b""
