"""The simulated WAN: exact delays in virtual time, and real sockets for what only they show."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, memory_stream_pair

from sidecar.demo.wan import SimulatedWan

RTT = 0.050
MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


@asynccontextmanager
async def carried(
    wan_options: dict[str, float | int] | None = None,
) -> AsyncIterator[tuple[MemoryStream, MemoryStream, SimulatedWan]]:
    """A connection through a WAN of 50 ms, set up: the client's end, the server's end, the WAN."""
    client, near = memory_stream_pair()
    far, server = memory_stream_pair()

    async def connect() -> MemoryStream:
        return far

    options = {"rtt": RTT, **(wan_options or {})}
    wan = SimulatedWan(connect, rtt=float(options["rtt"]), max_on_the_way=int(options.get("bound", 2**20)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wan.carry, near)
        yield client, server, wan
        nursery.cancel_scope.cancel()


async def test_setting_up_takes_a_round_trip_and_the_ack_half_a_one_more(autojump_clock: MockClock) -> None:
    async with carried() as (client, server, _):
        begin = trio.current_time()
        await server.send_all(b"+HI")
        assert await client.receive_some(10) == b"+HI"
        assert trio.current_time() - begin == pytest.approx(2 * RTT)


async def test_a_request_takes_half_a_round_trip_each_way(autojump_clock: MockClock) -> None:
    async with carried() as (client, server, _):
        await trio.sleep(1)
        begin = trio.current_time()
        await client.send_all(b"PUSH")
        assert await server.receive_some(10) == b"PUSH"
        assert trio.current_time() - begin == pytest.approx(RTT / 2)
        await server.send_all(b"+OK")
        assert await client.receive_some(10) == b"+OK"
        assert trio.current_time() - begin == pytest.approx(RTT)


async def test_a_thousand_round_trips_are_a_thousand_times_as_long(autojump_clock: MockClock) -> None:
    async with carried() as (client, server, _):
        await trio.sleep(1)
        begin = trio.current_time()
        for _ in range(1000):
            await client.send_all(b"x")
            await server.send_all(await server.receive_some(1))
            await client.receive_some(1)
        assert trio.current_time() - begin == pytest.approx(1000 * RTT)


async def test_pipelined_data_travels_together(autojump_clock: MockClock) -> None:
    arrivals: list[tuple[bytes, float]] = []

    async with carried() as (client, server, _):
        await trio.sleep(1)
        begin = trio.current_time()

        async def note() -> None:
            while len(arrivals) < 20:
                arrivals.append((bytes(await server.receive_some(10)), trio.current_time() - begin))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note)
            for number in range(20):
                await client.send_all(b"%d" % number)
                await trio.sleep(0.001)
    assert [data for data, _ in arrivals] == [b"%d" % n for n in range(20)]
    assert [moment for _, moment in arrivals] == pytest.approx([n * 0.001 + RTT / 2 for n in range(20)])


async def test_bytes_on_the_way_are_bounded(autojump_clock: MockClock) -> None:
    async with carried({"bound": 1000, "rtt": 2.0}) as (client, server, _):
        await trio.sleep(5)
        begin = trio.current_time()
        arrivals: list[float] = []

        async def note() -> None:
            while True:
                await server.receive_some(10_000)
                arrivals.append(trio.current_time() - begin)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note)
            for _ in range(4):
                await client.send_all(b"x" * 1000)
                await trio.sleep(0.01)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
    assert arrivals == [
        pytest.approx(1.0),
        pytest.approx(2.0),
    ]  # one bound of bytes a delay; the rest came as one piece


async def test_a_cut_link_is_silent_and_loses_nothing(autojump_clock: MockClock) -> None:
    async with carried() as (client, server, wan):
        await trio.sleep(1)
        await client.send_all(b"early")
        await trio.sleep(RTT)
        wan.cut()
        await client.send_all(b"late")
        assert await server.receive_some(10) == b"early"
        with trio.move_on_after(60) as patience:
            await server.receive_some(10)
        assert patience.cancelled_caught
        begin = trio.current_time()
        wan.restore()
        assert await server.receive_some(10) == b"late"
        assert trio.current_time() - begin == pytest.approx(RTT / 2)


async def test_connecting_through_a_cut_link_waits(autojump_clock: MockClock) -> None:
    async with carried() as (client, server, wan):
        wan.cut()
        await server.send_all(b"+HI")
        with trio.move_on_after(60) as patience:
            await client.receive_some(10)
        assert patience.cancelled_caught
        wan.restore()
        with trio.fail_after(1):
            assert await client.receive_some(10) == b"+HI"


async def test_the_end_of_one_direction_leaves_the_other(autojump_clock: MockClock) -> None:
    async with carried() as (client, server, _):
        await client.send_all(b"last")
        await client.send_eof()
        assert await server.receive_some(10) == b"last"
        assert await server.receive_some(10) == b""
        await server.send_all(b"reply")
        assert await client.receive_some(10) == b"reply"


async def test_a_refused_connection_is_reset() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()  # nobody listens there now
    wan = SimulatedWan(functools.partial(trio.open_tcp_stream, "127.0.0.1", port), rtt=0.001)
    async with trio.open_nursery() as nursery:
        client = await trio.open_tcp_stream("127.0.0.1", await nursery.start(wan.run))
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some(10)
        nursery.cancel_scope.cancel()


async def test_a_reset_is_carried_to_the_other_end() -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await trio.aclose_forcefully(stream)  # with unread data this is a reset

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, reset, listeners)
        wan = SimulatedWan(functools.partial(trio.open_tcp_stream, "127.0.0.1", port), rtt=0.001)
        client = await trio.open_tcp_stream("127.0.0.1", await nursery.start(wan.run))
        await client.send_all(b"two bytes and more")
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some(10)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_it_carries_100_megabytes_a_second() -> None:
    total = 300 * 2**20
    received = 0
    done = trio.Event()

    async def drain(stream: trio.SocketStream) -> None:
        nonlocal received
        while data := await stream.receive_some(2**20):
            received += len(data)
        done.set()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, drain, listeners)
        wan = SimulatedWan(functools.partial(trio.open_tcp_stream, "127.0.0.1", port), rtt=RTT)
        client = await trio.open_tcp_stream("127.0.0.1", await nursery.start(wan.run))
        begin = trio.current_time()
        piece = b"x" * 2**20
        for _ in range(total // len(piece)):
            await client.send_all(piece)
        await client.send_eof()
        await done.wait()
        seconds = trio.current_time() - begin
        nursery.cancel_scope.cancel()
    assert received == total
    assert total / seconds > 100e6, f"{total / seconds / 1e6:.0f} MB/s"
