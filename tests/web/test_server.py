"""The server around the edge: addresses, start, stop, and connections that go wrong."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial

import pytest
import trio

from sidecar.config import Bind
from sidecar.errors import Refusal, StartError
from sidecar.protocol.jobs import Job
from sidecar.web.server import bind, serve
from tests.real.polling import wait_for_async
from tests.web.conftest import start
from tests.web.serving import Client, RecordingIntake, raw_answer


async def nothing(scope: object, receive: object, send: object) -> None:
    """Answers nobody."""


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_localhost_is_both_loopbacks_on_one_port() -> None:
    listeners = bind([Bind("localhost", 0)], lambda _: nothing, setting="X")
    try:
        addresses = [listener.address for listener in listeners]
    finally:
        for listener in listeners:
            listener.socket.close()

    assert {host for host, _ in addresses} == ({"127.0.0.1", "::1"} if has_ipv6_loopback() else {"127.0.0.1"})
    assert len({port for _, port in addresses}) == 1
    assert addresses[0][1] > 0


async def test_a_port_that_is_taken_stops_the_start_and_names_the_setting() -> None:
    (taken,) = bind([Bind("127.0.0.1", 0)], lambda _: nothing, setting="X")
    with taken.socket, pytest.raises(StartError, match=r"SIDECAR_HTTP_LISTEN: cannot listen on 127\.0\.0\.1:\d+: "):
        bind([Bind("127.0.0.1", 0), Bind(*taken.address)], lambda _: nothing, setting="SIDECAR_HTTP_LISTEN")


async def test_a_name_that_there_is_not_stops_the_start() -> None:
    with pytest.raises(StartError, match="no-such-host"):
        bind([Bind("no-such-host.invalid", 0)], lambda _: nothing, setting="SIDECAR_HTTP_LISTEN")


async def test_many_requests_on_one_connection_and_pipelined(client: Client, intake: RecordingIntake) -> None:
    for i in range(50):
        answer = await client.request("POST", "/jobs/add", {"a": i, "b": 2})
        assert answer.status == 200
    body = b'{"a": 1, "b": 2}'
    request = b"POST /jobs/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    await client.stream.send_all(request * 5)
    await wait_for_async(lambda: len(intake.jobs) == 55, what="all pipelined requests are taken")
    assert len({job.jid for job in intake.jobs}) == 55


async def test_a_half_closed_connection_gets_its_answer(port: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b'POST /jobs/add HTTP/1.0\r\nContent-Length: 16\r\n\r\n{"a": 1, "b": 2}')
        await stream.send_eof()
        assert (await raw_answer(stream)).status == 200


async def test_head_is_answered_as_get_without_the_body(client: Client) -> None:
    got = await client.request("GET", "/openapi.json")
    stream = await trio.open_tcp_stream("127.0.0.1", client.port)
    async with stream:
        await stream.send_all(b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        raw = b""
        while data := await stream.receive_some(65536):
            raw += data

    assert raw.startswith(b"HTTP/1.1 200")
    assert b"content-length: %d\r\n" % len(got.body) in raw
    assert raw.endswith(b"\r\n\r\n")


async def test_answers_that_are_being_made_are_finished_when_the_server_stops() -> None:
    arrived, go_on = trio.Event(), trio.Event()

    class Waiting(RecordingIntake):
        async def take(self, jobs: Sequence[Job], origin: object, *, linger: bool = True) -> list[Refusal | None]:
            arrived.set()
            await go_on.wait()
            return await super().take(jobs, origin, linger=linger)

    statuses: list[int] = []

    async def ask(client: Client) -> None:
        statuses.append((await client.request("POST", "/jobs/add", {"a": 1, "b": 2})).status)

    async with trio.open_nursery() as asking:
        async with trio.open_nursery() as serving:
            port = await start(serving, Waiting())
            idle = await Client.connect(port)
            assert (await idle.request("GET", "/docs")).status == 200
            client = await Client.connect(port)
            asking.start_soon(ask, client)
            await arrived.wait()
            asking.start_soon(_later, go_on)
            serving.cancel_scope.cancel()
        assert statuses == [200]
        with trio.fail_after(5):
            assert await idle.stream.receive_some(1) == b""
        with pytest.raises(OSError):  # noqa: PT011 - whatever the system calls it
            await trio.open_tcp_stream("127.0.0.1", port)
        await idle.aclose()
        await client.aclose()


async def _later(event: trio.Event) -> None:
    await trio.sleep(0.1)
    event.set()


async def test_a_stop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.web.server.GRACE_SECONDS", 0.2)

    async def stuck(scope: object, receive: object, send: object) -> None:
        await trio.sleep_forever()

    listeners = bind([Bind("127.0.0.1", 0)], lambda _: stuck, setting="X")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(partial(serve, listeners))
            client = await Client.connect(addresses[0][1])
            await client.stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        assert await client.stream.receive_some(1) == b""
        await client.aclose()


@pytest.mark.usefixtures("defects_expected")
async def test_an_exception_in_a_connection_ends_only_that_connection(
    port: int, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug in the server library")

    with monkeypatch.context() as patched:
        patched.setattr("sidecar.web.server._Protocol.handle", broken)
        other = await Client.connect(port)
        await other.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        assert await other.stream.receive_some(1) == b""
        await other.aclose()

    assert (await client.request("GET", "/docs")).status == 200


async def test_clients_that_leave_at_any_moment_leave_nothing_behind(port: int, intake: RecordingIntake) -> None:
    body = b'{"a": 1, "b": 2}'
    request = b"POST /jobs/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for cut in range(0, len(request), 7):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(request[:cut])
        await stream.aclose()
    whole = await Client.connect(port)
    async with whole.stream:
        assert (await whole.request("POST", "/jobs/add", body)).status == 200
    assert len(intake.jobs) == 1
