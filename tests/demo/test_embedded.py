"""The embedded Faktory beyond Faktory's contract: interceptors, restarts, limits, time."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from sidecar.demo.embedded import Command, EmbeddedFaktory, Reply
from sidecar.demo.store import Store
from sidecar.demo.workunits import WorkUnit, decode_many, decode_one, parse_timestamp, timestamp

JOB = b'{"jid":"12345678","jobtype":"Add","args":[1,2]}'


@asynccontextmanager
async def serving(server: EmbeddedFaktory, *, port: int = 0) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(server.run, port=port))
        yield
        nursery.cancel_scope.cancel()


async def connect(server: EmbeddedFaktory, hello: bytes = b'HELLO {"v":2}\n') -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    assert await stream.receive_some(100) == b'+HI {"v":2}\r\n'
    await stream.send_all(hello)
    assert await stream.receive_some(100) == b"+OK\r\n"
    return stream


async def call(stream: trio.SocketStream, line: bytes) -> bytes:
    await stream.send_all(line + b"\n")
    return bytes(await stream.receive_some(10_000))


async def test_an_interceptor_sees_each_command_and_may_let_it_pass() -> None:
    seen: list[Command] = []

    async def intercept(command: Command) -> Reply | None:
        seen.append(command)
        return None

    server = EmbeddedFaktory(intercept=intercept)
    async with serving(server):
        stream = await connect(server, b'HELLO {"v":2,"wid":"worker-1"}\n')
        assert await call(stream, b"PUSH " + JOB) == b"+OK\r\n"
    assert [(command.connection, command.wid, command.verb) for command in seen] == [
        (1, "", "HELLO"),
        (1, "worker-1", "PUSH"),
    ]
    assert seen[1].line == b"PUSH " + JOB


@pytest.mark.parametrize(
    ("reply", "received", "stored"),
    [
        (Reply(b"-ERR no\r\n"), b"-ERR no\r\n", 0),
        (Reply(b"-ERR shutdown in progress\r\n", close=True), b"-ERR shutdown in progress\r\n", 0),
        (Reply(close=True), b"", 0),
        (Reply(apply=True, close=True), b"", 1),
        (Reply(b"+LATER\r\n", apply=True), b"+LATER\r\n", 1),
    ],
)
async def test_an_interceptor_may_answer_instead(reply: Reply, received: bytes, stored: int) -> None:
    async def intercept(command: Command) -> Reply | None:
        return reply if command.verb == "PUSH" else None

    server = EmbeddedFaktory(intercept=intercept)
    async with serving(server):
        stream = await connect(server)
        assert await call(stream, b"PUSH " + JOB) == received
        if reply.close:
            assert await stream.receive_some(1) == b""
        else:
            assert await call(stream, b"PUSHB []") == b"$2\r\n{}\r\n"
    assert len(server.stored()) == stored


async def test_an_interceptor_may_refuse_a_hello() -> None:
    async def intercept(command: Command) -> Reply | None:
        return Reply(b"-ERR too many cooks\r\n", close=True)

    server = EmbeddedFaktory(intercept=intercept)
    async with serving(server):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.receive_some(100)
        assert await call(stream, b'HELLO {"v":2}') == b"-ERR too many cooks\r\n"
        assert await stream.receive_some(1) == b""


async def test_a_slow_command_holds_up_its_own_connection_only() -> None:
    go_on = trio.Event()

    async def intercept(command: Command) -> Reply | None:
        if command.connection == 1 and command.verb == "PUSH":
            await go_on.wait()
        return None

    server = EmbeddedFaktory(intercept=intercept)
    async with serving(server):
        slow, quick = await connect(server), await connect(server)
        await slow.send_all(b"PUSHB []\nPUSH " + JOB + b"\n")
        assert await slow.receive_some(100) == b"$2\r\n{}\r\n"
        assert await call(quick, b"PUSH " + JOB) == b"+OK\r\n"
        assert len(server.stored()) == 1
        go_on.set()
        assert await slow.receive_some(100) == b"+OK\r\n"


async def test_jobs_outlive_a_restart_on_the_same_port() -> None:
    server = EmbeddedFaktory()
    async with serving(server):
        port = server.port
        await call(await connect(server), b"PUSH " + JOB)
    async with serving(server, port=port):
        assert server.port == port
        stream = await connect(server, b'HELLO {"v":2,"wid":"worker-1"}\n')
        assert b'"jid":"12345678"' in await call(stream, b"FETCH default")


async def test_too_many_connections_are_told_so_after_hello() -> None:
    server = EmbeddedFaktory(max_connections=1)
    async with serving(server):
        first = await connect(server)
        second = await trio.open_tcp_stream("127.0.0.1", server.port)
        received = await second.receive_some(100)
        await second.send_all(b'HELLO {"v":2}\n')
        while data := await second.receive_some(100):
            received += data
        assert received == b'+HI {"v":2}\r\n+OK\r\n-ERR too many connections: 2\r\n'
        assert await call(first, b"PUSHB []") == b"$2\r\n{}\r\n"


async def test_a_job_of_a_megabyte_in_small_pieces() -> None:
    server = EmbeddedFaktory()
    line = b'PUSH {"jid":"12345678","jobtype":"Add","args":["' + b"x" * 2**20 + b'"]}\n'
    async with serving(server):
        stream = await connect(server)
        for start in range(0, len(line), 10_000):
            await stream.send_all(line[start : start + 10_000])
        assert await stream.receive_some(100) == b"+OK\r\n"
    assert len(server.stored()[0]["args"][0]) == 2**20


class Clock:
    """Unix time that stands still unless it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


def unit(jid: str = "12345678", **fields: Any) -> WorkUnit:
    return msgspec.convert({"jid": jid, "jobtype": "Add", "args": [], **fields}, WorkUnit)


async def test_scheduled_jobs_are_queued_when_due() -> None:
    clock = Clock()
    store = Store(now=clock)
    store.push(unit(at=timestamp(clock.seconds + 10)))
    clock.seconds += 9
    store.tick()
    assert await queued(store) == []
    clock.seconds += 1
    store.tick()
    assert await queued(store) == ["12345678"]


async def test_an_expired_reservation_becomes_a_retry() -> None:
    clock = Clock()
    store = Store(now=clock)
    store.push(unit(reserve_for=60))
    assert await store.fetch(["default"], "worker-1") is not None
    clock.seconds += 59
    store.tick()
    assert store.sets["retries"] == {}
    clock.seconds += 1
    store.tick()
    (payload,) = store.sets["retries"]
    failure = decode_one(payload).failure
    assert failure is not None
    assert failure.errtype == "ReservationExpired"
    clock.seconds += 50
    store.tick()
    assert await queued(store) == ["12345678"]


async def test_the_last_failure_is_a_death() -> None:
    clock = Clock()
    store = Store(now=clock)
    store.push(unit(retry=2))
    for _ in range(3):
        assert await store.fetch(["default"], "worker-1") is not None
        store.fail("12345678", message="", errtype="", backtrace=[])
        clock.seconds += 1000
        store.tick()
    (payload,) = store.sets["dead"]
    failure = decode_one(payload).failure
    assert failure is not None
    assert (failure.retry_count, failure.remaining, failure.message) == (2, 0, "unknown")


async def test_a_waiting_fetch_that_is_cancelled_gives_its_job_back(autojump_clock: object) -> None:
    store = Store(now=Clock())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.fetch, ["default"], "worker-1")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
        store.push(unit())  # handed to a FETCH that is cancelled and doesn't know it yet
    assert await queued(store) == ["12345678"]


async def test_the_longest_waiting_worker_gets_the_next_job(autojump_clock: object) -> None:
    store = Store(now=Clock())
    got: list[str] = []

    async def work(wid: str) -> None:
        if await store.fetch(["a", "b"], wid) is not None:
            got.append(wid)

    async with trio.open_nursery() as nursery:
        for wid in ("first", "second"):
            nursery.start_soon(work, wid)
            await trio.sleep(0.1)
        store.push(unit(queue="b"))
        await trio.sleep(0.1)
        assert got == ["first"]
    assert got == ["first"]


async def queued(store: Store) -> list[str | None]:
    """The jids that wait in the default queue."""
    return [job.jid for job in store.queues.get("default", ())]


def test_bulk_is_read_by_the_quick_and_the_slow_way_alike() -> None:
    quick = decode_many(b"[" + JOB + b"," + JOB + b"]")
    slow = decode_many(b"[" + JOB + b"," + JOB.replace(b'"jid"', b'"unknown":0,"JID"') + b"]")
    assert quick == slow


def test_timestamps_there_and_back() -> None:
    for seconds in (0.0, 1_700_000_000.0, 1_700_000_000.123456, 4_102_444_800.5):
        assert parse_timestamp(timestamp(seconds)) == pytest.approx(seconds, abs=1e-6)
    assert timestamp(1_700_000_000.0) == "2023-11-14T22:13:20Z"
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.25Z"
