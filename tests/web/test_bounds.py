"""Bodies that are too large, too slow, too many or endless, and heads that are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from starlette.types import Message

from sidecar.budget import Budget
from sidecar.web import bounds, server
from sidecar.web.bounds import BODY_SECONDS, MAX_BODY, MAX_HEAD, Bodies, Gone
from sidecar.web.problems import Problem
from tests.real.polling import wait_for_async
from tests.web.conftest import start
from tests.web.serving import Client, RecordingIntake, raw_answer

MIB = 1 << 20


async def pieces(*bodies: bytes, every: float = 0.0, last: bool = True) -> AsyncIterator[Message]:
    for i, body in enumerate(bodies):
        await trio.sleep(every)
        yield {"type": "http.request", "body": body, "more_body": not last or i < len(bodies) - 1}
    await trio.sleep_forever()


async def test_a_body_is_put_together_and_released(autojump_clock: trio.testing.MockClock) -> None:
    budget = Budget()
    body = await Bodies(budget).read(pieces(b"ab", b"", b"c", every=BODY_SECONDS / 4).__anext__, None)

    assert budget.used == 3
    assert body.take() == b"abc"
    assert budget.used == 3, "until it is answered"
    body.release()
    assert budget.used == 0


async def test_a_slow_body_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    budget = Budget()
    begun = trio.current_time()
    with pytest.raises(Problem) as caught:
        await Bodies(budget).read(pieces(*[b"x"] * 100, every=1).__anext__, 100)

    assert caught.value.status == 408
    assert trio.current_time() - begun == BODY_SECONDS
    assert budget.used == 0


async def test_a_body_may_have_exactly_the_bound() -> None:
    bodies = Bodies(Budget())
    half = bytes(MAX_BODY // 2)

    body = await bodies.read(pieces(half, half).__anext__, None)
    assert len(body.take()) == MAX_BODY
    body.release()
    with pytest.raises(Problem) as caught:
        await bodies.read(pieces(half, half, b"x").__anext__, None)
    assert caught.value.status == 413
    assert str(MAX_BODY) in caught.value.detail


async def test_a_body_that_finds_no_room_is_told_to_come_again(autojump_clock: trio.testing.MockClock) -> None:
    budget = Budget()
    bodies = Bodies(budget)
    first = await bodies.read(pieces(bytes(MAX_BODY)).__anext__, None)
    with pytest.raises(Problem) as caught:
        await bodies.read(pieces(bytes(2 * MIB), b"x").__anext__, None)

    assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "1"})
    first.release()
    second = await bodies.read(pieces(bytes(2 * MIB), b"x").__anext__, None)
    assert len(second.take()) == 2 * MIB + 1


async def test_a_client_that_leaves_is_no_problem() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    budget = Budget()
    with pytest.raises(Gone):
        await Bodies(budget).read(receive, 5)
    assert budget.used == 0


async def test_a_declared_length_over_the_bound_is_refused_at_once(client: Client, intake: RecordingIntake) -> None:
    head = f"POST /jobs/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
    await client.stream.send_all(head.encode())

    answer = await raw_answer(client.stream)

    assert answer.status == 413
    assert str(MAX_BODY) in answer.problem()["detail"]
    assert answer.headers["connection"] == "close"
    assert not intake.requests


async def accepts(stream: trio.SocketStream, data: bytes) -> bool:
    """Whether the other side still takes what is sent."""
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return False
    return True


@pytest.mark.parametrize("path", ["/jobs/batch", "/nothing", "/docs"])
async def test_an_endless_body_is_cut_off_and_its_sender_sees_why(
    port: int, intake: RecordingIntake, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(bounds, "LINGER_SECONDS", 0.2)
    client = await Client.connect(port)
    async with client.stream:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.stream.send_all(head.encode())
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        sent = 0
        with trio.fail_after(20):
            while await accepts(client.stream, chunk):
                sent += len(chunk)
        assert sent > MAX_BODY
    assert not intake.requests
    other = await Client.connect(port)
    async with other.stream:
        assert (await other.request("POST", "/jobs/add", {"a": 1, "b": 2})).status == 200


async def test_a_refused_request_with_a_large_body_sees_its_answer(client: Client, intake: RecordingIntake) -> None:
    answer = await client.request("POST", "/jobs/add", b"x" * 5_000_000, [("Origin", "https://evil.example")])

    assert answer.status == 403
    assert not intake.requests


async def test_a_flood_of_header_fields_is_refused(client: Client) -> None:
    flood = b"".join(b"X-%d: %b\r\n" % (i, b"x" * 100) for i in range(MAX_HEAD // 100 + 10))
    with trio.move_on_after(5):
        await client.stream.send_all(b"GET /docs HTTP/1.1\r\nHost: localhost\r\n" + flood)

    answer = await raw_answer(client.stream)

    assert answer.status == 431
    assert str(MAX_HEAD) in answer.problem()["detail"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"GET /docs HTTP/1.1\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /d\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_answered_with_a_problem(client: Client, garbage: bytes) -> None:
    await client.stream.send_all(garbage)

    answer = await raw_answer(client.stream)

    assert answer.status in (400, 501)
    answer.problem()
    assert await client.stream.receive_some(1) == b"", "and the connection ends"


async def test_http2_is_not_spoken(client: Client) -> None:
    await client.stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))

    answer = await raw_answer(client.stream)

    assert 400 <= answer.status < 500


@pytest.mark.parametrize(
    "sent", [b"", b"POST /jobs/add HT", b"POST /jobs/add HTTP/1.1\r\nHost: localhost\r\nX-1: 1\r\n"]
)
async def test_a_connection_that_is_slow_with_its_head_is_closed(
    nursery: trio.Nursery, intake: RecordingIntake, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    port = await start(nursery, intake)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.fail_after(5):
            for byte in sent:
                await stream.send_all(bytes([byte]))
            while await stream.receive_some(1024):
                pass


async def test_connections_are_bounded_and_free_again(
    nursery: trio.Nursery, intake: RecordingIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    port = await start(nursery, intake)
    idle = [await Client.connect(port) for _ in range(3)]
    for client in idle:
        assert (await client.request("GET", "/openapi.json")).status == 200

    one_more = await trio.open_tcp_stream("127.0.0.1", port)
    answer = await raw_answer(one_more)
    assert answer.status == 503
    assert "3 connections" in answer.problem()["detail"]
    await one_more.aclose()

    for client in idle:
        await client.aclose()

    deadline = trio.current_time() + 5
    status = 503
    while status == 503 and trio.current_time() < deadline:
        again = await Client.connect(port)
        async with again.stream:
            try:
                status = (await again.request("GET", "/openapi.json")).status
            except trio.BrokenResourceError:
                continue
    assert status == 200


async def test_a_client_that_does_not_read_its_answer_is_dropped(
    nursery: trio.Nursery, intake: RecordingIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WRITE_SECONDS", 0.2)
    port = await start(nursery, intake)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    broken = False

    async def push() -> None:
        nonlocal broken
        try:
            while True:
                await stream.send_all(request * 100)
        except trio.BrokenResourceError:
            broken = True

    async with stream:
        nursery.start_soon(push)
        await wait_for_async(lambda: broken, what="the server drops the connection", timeout=20)
    other = await Client.connect(port)
    async with other.stream:
        assert (await other.request("GET", "/docs")).status == 200, "the server lives on"
