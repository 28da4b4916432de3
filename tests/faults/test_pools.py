"""Pools of connections that workers open at once, on a real Faktory far away."""

from __future__ import annotations

import json
import time
from functools import partial

import pytest
import trio

from tests.conftest import FaktoryFactory, SidecarFactory
from tests.real.polling import wait_for
from tests.real.toxiproxy_server import Toxiproxy

ROUND_TRIP = 200
"""Milliseconds."""
OURS = 2
"""Connections of the sidecar itself, at most."""


class Pool:
    """Connections that are opened at once, and stay until the block ends.

    Args:
        port: of a Faktory, or of what stands in for one.
        wids: of each connection.
    """

    def __init__(self, port: int, wids: list[str]) -> None:
        self._port = port
        self._wids = wids
        self.replies: list[bytes] = []
        self.took = 0.0
        """Seconds until the last had its answer."""

    async def open(self, leave: trio.Event) -> None:
        """Open all, and hold them until `leave`."""
        started, answered = time.monotonic(), trio.Event()
        async with trio.open_nursery() as nursery:
            for wid in self._wids:
                nursery.start_soon(self._one, wid, answered)
            await answered.wait()
            self.took = time.monotonic() - started
            await leave.wait()
            nursery.cancel_scope.cancel()

    async def _one(self, wid: str, answered: trio.Event) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
            await greeting(stream)
            hello = {"v": 2, "wid": wid, "hostname": "pool", "pid": 1, "labels": []}
            await stream.send_all(b"HELLO " + json.dumps(hello).encode() + b"\r\n")
            self.replies.append(bytes(await stream.receive_some(1000)))
            if len(self.replies) == len(self._wids):
                answered.set()
            await trio.sleep_forever()


async def greeting(stream: trio.SocketStream) -> None:
    """Read the server's first line, which Faktory writes in pieces."""
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some(100)


def opened(port: int, wids: list[str]) -> Pool:
    """Open a pool, look at what it was answered, and close it."""
    pool, leave = Pool(port, wids), trio.Event()
    leave.set()
    trio.run(pool.open, leave)
    return pool


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("count", "workers"), [(100, 1), (500, 30)])
def test_all_are_accepted_about_as_soon_as_without_the_sidecar(
    count: int, workers: int, faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=ROUND_TRIP)
    sidecar = sidecar_process(server.url_at(link.port))
    sidecar.wait_for_event("link_up")

    def gone() -> bool:
        return int(server.info()["server"]["connections"]) <= OURS + 1

    def up_again(times: int) -> bool:
        return len(sidecar.events("link_up")) > times

    spare = []  # seconds within the bound, in each turn; the best counts, because others may use the machine
    for turn in range(3):
        direct = opened(link.port, [f"direct-{number % workers}" for number in range(count)])
        assert direct.replies == [b"+OK\r\n"] * count
        wait_for(gone, what="Faktory has seen them leave")
        pool = opened(sidecar.port, [f"worker-{turn}-{number % workers}" for number in range(count)])
        assert pool.replies == [b"+OK\r\n"] * count
        spare.append(2 * direct.took + 0.2 - pool.took)
        wait_for(gone, what="Faktory has seen them leave")
        link.cut()
        wait_for(partial(up_again, turn + 1), what="the link is up again")
    assert max(spare) >= 0


@pytest.mark.timeout(120)
def test_workers_that_come_back_after_a_cut_count_once(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    """Impatient ones leave and come again while upstream is silent: Faktory has a limit of 2,000 connections."""
    count, most = 100, 0
    server = faktory_factory()
    link = toxiproxy.link(server.port)
    sidecar = sidecar_process(server.url_at(link.port))
    sidecar.wait_for_event("link_up")
    link.latency(1_500)
    wids = [f"impatient-{number % 10}" for number in range(count)]

    async def come_and_go() -> None:
        for _ in range(6):
            with trio.move_on_after(0.25):
                await Pool(sidecar.port, wids).open(trio.Event())

    trio.run(come_and_go)
    with server.client() as look:
        link.heal()
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            most = max(most, int(look.info()["server"]["connections"]))
    assert most <= 1 + OURS + count
    assert opened(sidecar.port, wids).replies == [b"+OK\r\n"] * count


def test_the_first_of_a_pool_is_the_one_that_is_quieted(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=ROUND_TRIP)
    sidecar = sidecar_process(server.url_at(link.port))
    sidecar.wait_for_event("link_up")

    async def first_and_others() -> None:
        others, leave = Pool(sidecar.port, ["pool"] * 30), trio.Event()
        stream = await trio.open_tcp_stream("127.0.0.1", sidecar.port)
        await greeting(stream)
        await stream.send_all(b'HELLO {"v":2,"wid":"pool","hostname":"first","pid":1,"labels":[]}\r\n')
        await trio.sleep(0.02)  # the order is what is tested
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others.open, leave)
            assert await stream.receive_some(100) == b"+OK\r\n"
            while len(others.replies) < 30:  # noqa: ASYNC110 - a list tells of nothing
                await trio.sleep(0.01)
            await trio.to_thread.run_sync(server.signal_worker, "pool", "quiet")
            with server.client() as producer:
                producer.push({"jid": "for-the-others", "jobtype": "T", "args": []})
            await stream.send_all(b"FETCH default\r\n")
            assert await stream.receive_some(1000) == b"$-1\r\n"
            leave.set()
        await stream.aclose()

    trio.run(first_and_others)
    assert [job["jid"] for job in server.stored()] == ["for-the-others"]
