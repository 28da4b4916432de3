"""The embedded Faktory and the real one give the same replies and keep the same jobs."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import FaktoryFactory
from tests.demo.embedded_thread import ThreadedFaktory, embedded_in_thread
from tests.real.faktory_server import RealFaktory
from tests.real.raw_client import RawClient, ServerError

Server = RealFaktory | ThreadedFaktory
PASSWORD = "correct horse"


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "real":
        yield request.getfixturevalue("faktory")
    else:
        with embedded_in_thread() as embedded:
            yield embedded


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def guarded(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "real":
        factory: FaktoryFactory = request.getfixturevalue("faktory_factory")
        yield factory(password=PASSWORD)
    else:
        with embedded_in_thread(password=PASSWORD) as embedded:
            yield embedded


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with server.client() as connection:
        yield connection


@pytest.fixture
def worker(server: Server) -> Iterator[RawClient]:
    with server.client(hello={"wid": "contract-worker"}) as connection:
        yield connection


def job(jid: str = "jid-0001", **fields: Any) -> dict[str, Any]:
    return {"jid": jid, "jobtype": "Add", "args": [1, 2], **fields}


def test_a_handshake_without_password(server: Server) -> None:
    with server.client(greet=False) as client:
        assert client.raw_reply() == b'+HI {"v":2}\r\n'
        assert client.raw_call('HELLO {"v":2}') == b"+OK\r\n"


def test_the_first_command_may_share_a_packet_with_hello(server: Server) -> None:
    with server.client(greet=False) as client:
        client.raw_reply()
        client.send(b'HELLO {"v":2}\nPUSH ' + json.dumps(job()).encode() + b"\nNONSENSE\n")
        assert [client.raw_reply() for _ in range(3)] == [
            b"+OK\r\n",
            b"+OK\r\n",
            b"-ERR unknown command NONSENSE\r\n",
        ]


@pytest.mark.parametrize(
    "line", ["PUSH {}", "HELLO", 'HELLO  {"v":2}', "HELLO {", 'hello {"v":2}', 'HELLO {"wid":5}', 'HELLO {"v":300}']
)
def test_a_wrong_hello_is_shown_the_door(server: Server, line: str) -> None:
    with server.client(greet=False) as client:
        client.raw_reply()
        assert client.raw_call(line) == b""


def test_silence_in_the_handshake_ends_after_two_seconds(server: Server) -> None:
    with server.client(greet=False) as client:
        client.raw_reply()
        begin = time.monotonic()
        assert client.raw_reply() == b""
        assert 1.5 < time.monotonic() - begin < 3.5


def test_a_handshake_with_password(guarded: Server) -> None:
    with guarded.client(greet=False) as client:
        assert re.fullmatch(rb'\+HI \{"v":2,"i":\d{4},"s":"[0-9a-f]+"\}\r\n', client.raw_reply())
    with guarded.client() as client:
        assert client.push(job()) == "OK"


def test_a_wrong_password_is_refused(guarded: Server) -> None:
    with pytest.raises(ServerError, match=r"^ERR Invalid password$"):
        RawClient(guarded.port, "wrong")


def test_a_hello_without_version_is_hashed_once(guarded: Server) -> None:
    with guarded.client(greet=False) as client:
        salt = json.loads(client.raw_reply()[4:])["s"]
        digest = hashlib.sha256((PASSWORD + salt).encode()).hexdigest()
        assert client.raw_call(f'HELLO {{"pwdhash":"{digest}"}}') == b"+OK\r\n"


ANSWERED_WORD_FOR_WORD: list[str | bytes] = [
    "NONSENSE",
    "push {}",
    "",
    " PUSH {}",
    "PUSH",
    "PUSHB",
    "ACK",
    "FAIL",
    "BEAT",
    "QUEUE",
    "QUEUE PAUSE",
    "PUSH null",
    "PUSH {}",
    'PUSH {"jid":"short"}',
    'PUSH {"jid":"12345678"}',
    'PUSH {"jid":null,"jobtype":"A","args":[]}',
    'PUSH {"jid":"éééé","jobtype":"A"}',
    'PUSH {"jid":"12345678","jobtype":"A"}',
    'PUSH {"jid":"12345678","jobtype":"A","args":null}',
    'PUSH {"jid":"12345678","jobtype":"","args":[]}',
    'PUSH {"jid":"12345678","jobtype":"A","args":[],"reserve_for":86401}',
    'PUSH {"jid":"12345678","jobtype":"A","args":[],"queue":"a b"}',
    'PUSH {"jid":"12345678","jobtype":"A","args":[],"queue":"<&\\"\\\\>"}',
    'PUSH {"JID":"12345678","JobType":"A","ARGS":[],"priority":5}',
    'PUSH {"jid":"12345678","jobtype":"A","args":["\\ud800"]}',
    b'PUSH {"jid":"12345678","jobtype":"A","args":["\xff"]}',
    'PUSH {"jid":"12345678","jobtype":"A","args":[],"at":"2001-01-01T00:00:00Z"}',
    "PUSHB []",
    "PUSHB null",
    "PUSHB [null]",
    'PUSHB [{"jid":"x"},{"jid":"12345678","jobtype":"A","args":[],"queue":"<a b>"},{"jid":"12345679","jobtype":"A"}]',
    "FETCH",
    'ACK {"jid":"nobody-has-it"}',
    "ACK {}",
    "ACK []",
    "ACK nonsense",
    'ACK {"jid":5}',
    "FAIL {}",
    "FAIL [",
    'FAIL {"jid":"nobody-has-it"}',
    'FAIL {"jid":"nobody-has-it","backtrace":"x"}',
    "BEAT {}",
    'BEAT {"wid":"nobody"}',
    "BEAT nonsense",
    "MUTATE",
    "MUTATE a b",
    'MUTATE {"cmd":"explode","target":"dead"}',
    'MUTATE {"cmd":"clear","target":"working"}',
    'MUTATE {"cmd":"clear","target":"dead"}',
    "QUEUE EXPLODE x",
    "QUEUE LATENCY *",
    "QUEUE LATENCY nowhere",
    "QUEUE PAUSE nowhere",
    "QUEUE RESUME *",
    "QUEUE REMOVE nowhere",
    "TRACK GET 12345678",
    "BATCH NEW {}",
]


def test_replies_are_the_same_word_for_word(faktory: RealFaktory) -> None:
    def replies(server: Server) -> dict[str | bytes, bytes]:
        with server.client() as client:
            return {line: client.raw_call(line) for line in ANSWERED_WORD_FOR_WORD}

    with embedded_in_thread() as embedded:
        assert replies(embedded) == replies(faktory)


@pytest.mark.parametrize(
    "line",
    [
        "PUSH ",
        "PUSH [",
        "PUSH 5",
        'PUSH {"jid":5}',
        'PUSH {"jid":"12345678","jobtype":"A","args":{}}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[],"retry":1.0}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[],"retry":true}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[],"reserve_for":9223372036854775808}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[1e400]}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[NaN]}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[],"custom":[]}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[],"failure":"x"}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[1,]}',
        'PUSH {"jid":"12345678","jobtype":"A","args":[]} trailing',
        "PUSHB {}",
        "PUSHB [1]",
    ],
)
def test_what_is_no_job_is_invalid_json(client: RawClient, line: str) -> None:
    assert client.raw_call(line).startswith(b"-ERR invalid JSON: ")


@pytest.mark.parametrize("at", ["soon", "2030-01-01", "2030-02-30T00:00:00Z", "2030-01-01T00:00:00"])
def test_a_wrong_time_is_refused(client: RawClient, at: str) -> None:
    assert client.raw_call("PUSH " + json.dumps(job(at=at))).startswith(
        f'-ERR invalid timestamp for \'at\': "{at}": parsing time "{at}"'.encode()
    )


PUSHED: list[dict[str, Any]] = [
    job(),
    job(queue="", custom={}, reserve_for=0, backtrace=0, at="", created_at=""),
    job(queue="bulk", retry=-1, reserve_for=60, backtrace=20, priority=9),
    job(custom={"a": {"b": [1.5, "ü", None, True]}, "z": "<&>"}, created_at="2020-01-01T00:00:00Z"),
    job(at="2020-01-01T00:00:00.5+02:00"),
    job(args=[{"a": 1, "b": -2}, "\u2028", "😀", 1e21, 0.1, []]),
    job(failure={"retry_count": 2, "remaining": 3, "failed_at": "x", "unknown": 1}),
    job(Custom={"a": 1}, RETRY=4),
    job() | {"cuſtom": {"long": "s"}, "bac\u212atrace": 7},
]


def without_times(stored: dict[str, Any]) -> dict[str, Any]:
    assert "T" in stored["created_at"]
    assert "T" in stored["enqueued_at"]
    return {name: value for name, value in stored.items() if name not in ("created_at", "enqueued_at")}


@pytest.mark.parametrize("bulk", [False, True])
def test_the_same_jobs_are_stored(faktory: RealFaktory, bulk: bool) -> None:
    def stored(server: Server) -> list[list[dict[str, Any]]]:
        with server.client() as client:
            client.push(job(queue="elsewhere", retry=25))  # earlier tests may have changed the server's default
            if bulk:
                assert client.push_bulk(PUSHED) == {}
            else:
                assert [client.push(pushed) for pushed in PUSHED] == ["OK"] * len(PUSHED)
        return [[without_times(kept) for kept in server.stored(queue)] for queue in ("default", "bulk")]

    with embedded_in_thread() as embedded:
        ours = stored(embedded)
    assert ours == stored(faktory)
    assert [len(queue) for queue in ours] == [len(PUSHED) - 1, 1]


def test_a_name_that_comes_twice_is_merged(server: Server, client: RawClient) -> None:
    line = 'PUSH {"jid":"12345678","jobtype":"A","args":[],"custom":{"unique_for":5},"custom":{"a":1}}'
    assert client.call(line) == "OK"
    assert server.stored()[0]["custom"] == {"unique_for": 5, "a": 1}


def test_a_retry_changes_the_default_of_the_server(faktory_factory: FaktoryFactory) -> None:
    def retries(server: Server) -> list[int]:
        with server.client() as client:
            client.push(job("before-1"))
            client.push(job("explicit", retry=3))
            client.push(job("after-01"))
            client.push_bulk([job("after-02"), job("after-03", retry=9), job("after-04")])
        return [kept["retry"] for kept in server.stored()]

    with embedded_in_thread() as embedded:
        assert retries(embedded) == retries(faktory_factory()) == [25, 3, 3, 3, 9, 3]


def test_the_tail_of_a_bulk_is_kept_when_its_head_is_refused(server: Server, client: RawClient) -> None:
    refused = client.push_bulk([job("short"), job("12345678"), job("12345679", reserve_for=99999)])
    assert refused == {
        "short": "jobs must have a reasonable jid parameter",
        "12345679": "jobs cannot be reserved for more than one day",
    }
    assert [kept["jid"] for kept in server.stored()] == ["12345678"]


def test_the_same_jid_twice_is_two_jobs(server: Server, client: RawClient) -> None:
    client.push(job())
    client.push_bulk([job(), job()])
    assert len(server.stored()) == 3


def test_fetch_takes_queues_in_their_order(client: RawClient, worker: RawClient) -> None:
    client.push(job("jid-low1", queue="low"))
    client.push(job("jid-high1", queue="high"))
    client.push(job("jid-high2", queue="high"))
    fetched = [worker.fetch("high", "low") for _ in range(3)]
    assert [kept and kept["jid"] for kept in fetched] == ["jid-high1", "jid-high2", "jid-low1"]


def test_fetch_waits_two_seconds_for_a_job(client: RawClient, worker: RawClient) -> None:
    begin = time.monotonic()
    assert worker.raw_call("FETCH a b") == b"$-1\r\n"
    assert 1.8 < time.monotonic() - begin < 4.0
    worker.send("FETCH a b")
    client.push(job(queue="b"))
    begin = time.monotonic()
    assert json.loads(worker.reply() or "")["jid"] == "jid-0001"
    assert time.monotonic() - begin < 1.5


def test_an_acknowledged_job_is_done(server: Server, client: RawClient, worker: RawClient) -> None:
    client.push(job())
    assert worker.fetch("default") is not None
    assert sizes(server)["working"] == 1
    assert worker.ack("jid-0001") == "OK"
    assert worker.ack("jid-0001") == "OK"
    assert sizes(server) == {"working": 0, "scheduled": 0, "retries": 0, "dead": 0}
    assert totals(server) == (0, 1, 0)


def test_a_failed_job_is_retried_then_dead_or_forgotten(server: Server, client: RawClient, worker: RawClient) -> None:
    for number, retry in enumerate((25, 0, -1)):
        client.push(job(f"failing{number}", retry=retry, backtrace=1))
        assert worker.fetch("default") is not None
        assert worker.fail(f"failing{number}", "  it broke ") == "OK"
    (retried,) = server.stored_sorted("retries")
    (dead,) = server.stored_sorted("dead")
    assert (retried["jid"], dead["jid"]) == ("failing0", "failing2")
    assert retried["failure"].pop("failed_at") < retried["failure"].pop("next_at")
    assert retried["failure"] == {
        "retry_count": 0,
        "remaining": 25,
        "message": "it broke",
        "errtype": "Test",
    }
    assert totals(server) == (3, 3, 0)
    with pytest.raises(ServerError, match=r"^ERR Job not found failing0$"):
        worker.fail("failing0")


def test_beats_tell_a_worker_to_be_quiet_and_to_end(server: Server, worker: RawClient) -> None:
    assert worker.beat("contract-worker") == "OK"
    server.signal_worker("contract-worker", "quiet")
    assert worker.beat("contract-worker") == '{"state":"quiet"}'
    assert worker.raw_call('BEAT {"wid":"contract-worker","current_state":"terminate"}') == (
        b'$21\r\n{"state":"terminate"}\r\n'
    )
    assert worker.beat("contract-worker") == '{"state":"terminate"}'


def test_quiet_reaches_the_first_connection_only(server: Server, client: RawClient, worker: RawClient) -> None:
    with server.client(hello={"wid": "contract-worker"}) as second:
        server.signal_worker("contract-worker", "quiet")
        client.push(job())
        assert worker.fetch("default") is None
        assert second.fetch("default") is not None


def test_a_worker_is_forgotten_with_its_last_connection(server: Server, client: RawClient) -> None:
    with server.client(hello={"wid": "short-lived"}) as first, server.client(hello={"wid": "short-lived"}):
        first.close()
        assert client.beat("short-lived") == "OK"
    deadline = time.monotonic() + 5
    beat = b'BEAT {"wid":"short-lived"}'
    while (reply := client.raw_call(beat)) == b"+OK\r\n" and time.monotonic() < deadline:
        pass
    assert reply == b"-ERR unknown worker short-lived\r\n"


def test_paused_queues_give_no_jobs(server: Server, client: RawClient, worker: RawClient) -> None:
    client.push(job("jid-pause", queue="paused"))
    client.push(job("jid-other", queue="other"))
    assert client.call("QUEUE PAUSE paused") == "OK"
    assert (worker.fetch("paused", "other") or {})["jid"] == "jid-other"
    assert worker.fetch("paused") is None
    assert client.call("QUEUE RESUME paused") == "OK"
    assert (worker.fetch("paused") or {})["jid"] == "jid-pause"
    client.push(job("jid-pause", queue="paused"))
    assert client.call("QUEUE REMOVE paused other") == "OK"
    assert server.stored("paused") == []


def test_latency_is_the_age_of_the_oldest_job(client: RawClient) -> None:
    client.push(job(queue="aging"))
    found = json.loads(client.call("QUEUE LATENCY aging empty") or "")
    assert found["empty"] == 0
    assert 0 <= found["aging"] < 5


def test_scheduled_jobs_wait(server: Server, client: RawClient) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert client.push(job(at=at, queue="not checked yet")) == "OK"
    assert server.stored() == []
    (scheduled,) = server.stored_sorted("scheduled")
    assert (scheduled["jid"], scheduled["at"], "enqueued_at" in scheduled) == ("jid-0001", at, False)


def test_scheduled_jobs_arrive_when_they_are_due(client: RawClient, worker: RawClient) -> None:
    client.push(job(at=(datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()))
    deadline = time.monotonic() + 12
    while (fetched := worker.fetch("default")) is None and time.monotonic() < deadline:
        pass
    assert fetched is not None
    assert fetched["jid"] == "jid-0001"


@pytest.mark.parametrize("command", ["requeue", "discard", "kill", "clear"])
def test_mutate_moves_scheduled_jobs(server: Server, client: RawClient, command: str) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    client.push(job("jid-sched1", at=at))
    client.push(job("jid-sched2", at=at))
    wanted = "" if command == "clear" else ',"filter":{"jids":["jid-sched2"]}'
    assert client.call(f'MUTATE {{"cmd":"{command}","target":"scheduled"{wanted}}}') == "OK"
    left = [[kept["jid"] for kept in server.stored_sorted(name)] for name in ("scheduled", "dead")]
    expected = {
        "requeue": ([["jid-sched1"], []], ["jid-sched2"]),
        "discard": ([["jid-sched1"], []], []),
        "kill": ([["jid-sched1"], ["jid-sched2"]], []),
        "clear": ([[], []], []),
    }
    assert (left, [kept["jid"] for kept in server.stored()]) == expected[command]


def test_mutate_selects_by_type_and_pattern(server: Server, client: RawClient) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for jid, kind in (("jid-sched1", "Add"), ("jid-sched2", "Divide"), ("jid-sched3", "Divide")):
        client.push(job(jid, jobtype=kind, at=at))
    client.call('MUTATE {"cmd":"discard","target":"scheduled","filter":{"jobtype":"Add"}}')
    assert len(server.stored_sorted()) == 2
    client.call('MUTATE {"cmd":"discard","target":"scheduled","filter":{"regexp":"*sched3*"}}')
    assert [kept["jid"] for kept in server.stored_sorted()] == ["jid-sched2"]


def test_flush_leaves_nothing(server: Server, client: RawClient) -> None:
    client.push(job())
    client.push(job(at=(datetime.now(UTC) + timedelta(hours=1)).isoformat()))
    assert client.call("FLUSH") == "OK"
    assert server.stored() == []
    assert sizes(server)["scheduled"] == 0


def test_info_has_the_same_shape(faktory: RealFaktory) -> None:
    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {name: shape(item) for name, item in value.items() if name not in ("tasks", "queues")}
        return type(value).__name__

    with embedded_in_thread() as embedded, embedded.client() as client:
        client.push(job())
        report = embedded.info()
        assert shape(report) == shape(faktory.info())
        assert report["faktory"]["queues"] == {"default": 1}
        assert report["server"]["faktory_version"].startswith(faktory.info()["server"]["faktory_version"])
        assert "embedded" in report["server"]["description"]


def test_pipelined_commands_are_answered_in_their_order(client: RawClient, worker: RawClient) -> None:
    pushes = b"".join(b"PUSH " + json.dumps(job(f"jid-{n:05}")).encode() + b"\n" for n in range(200))
    client.send(pushes + b"NONSENSE\r\n" + b"PUSHB []\n")
    assert [client.raw_reply() for _ in range(202)] == [b"+OK\r\n"] * 200 + [
        b"-ERR unknown command NONSENSE\r\n",
        b"$2\r\n{}\r\n",
    ]
    worker.send(b"FETCH default\n" * 3)
    assert [json.loads(worker.reply() or "")["jid"] for _ in range(3)] == ["jid-00000", "jid-00001", "jid-00002"]


def test_end_closes_without_a_reply(client: RawClient) -> None:
    client.send(b"PUSHB []\nEND\nPUSHB []\n")
    assert client.raw_reply() == b"$2\r\n{}\r\n"
    assert client.raw_reply() == b""


def test_a_half_closed_client_gets_its_replies(server: Server, client: RawClient) -> None:
    client.send("PUSH " + json.dumps(job()))
    client.send(b"PUSH " + json.dumps(job("no-end-of-line")).encode()[:-2] + b"\n")
    client.socket.sendall(b"PUSH " + json.dumps(job("unended1")).encode())
    client.half_close()
    assert client.raw_reply() == b"+OK\r\n"
    assert client.raw_reply().startswith(b"-ERR invalid JSON")
    assert client.raw_reply() == b""
    assert [kept["jid"] for kept in server.stored()] == ["jid-0001"]


def sizes(server: Server) -> dict[str, int]:
    """How many jobs each set of the server has."""
    found: dict[str, int] = server.info()["faktory"]["sets"]
    return found


def totals(server: Server) -> tuple[int, int, int]:
    """Failed, processed and waiting jobs since the last FLUSH."""
    report = server.info()["faktory"]
    return report["total_failures"], report["total_processed"], report["total_enqueued"]
