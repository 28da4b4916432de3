"""What all clients together can make the running program hold, and what those are told who must wait."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from sidecar.budget import POOL, TURN, WAIT
from sidecar.protocol.lines import MAX_LINE
from tests.conftest import SidecarFactory
from tests.demo.embedded_thread import embedded_in_thread
from tests.edge.running import OK, Client, faktory, push, sidecar
from tests.real.raw_client import ServerError
from tests.real.sidecar_command import SidecarProcess
from tests.soak import hostile
from tests.soak.hostile import MIB, Target

ROOM = 160
"""MiB that the process may take beside its memory for jobs."""
TOGETHER = 4

GOOD = (OK, b"$2\r\n{}", b"HTTP/1.1 200")

Attack = Callable[[Target], bytes]


def large(target: Target) -> bytes:
    with target.client() as client:
        return client.raw_call(b"PUSH " + hostile.job(hostile.jid(target), 30 * MIB))


def bulk(target: Target) -> bytes:
    jobs = [hostile.job(hostile.jid(target), 30_000) for _ in range(1_000)]
    with target.client() as client:
        return client.raw_call(b"PUSHB [" + b",".join(jobs) + b"]")


def small_bulk(target: Target) -> bytes:
    jobs = [hostile.job(hostile.jid(target), 100) for _ in range(90_000)]
    with target.client() as client:
        return client.raw_call(b"PUSHB [" + b",".join(jobs) + b"]")


def post(target: Target, path: bytes, body: bytes) -> bytes:
    with target.connect(http=True) as connection:
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (path, len(body)) + body)
        return connection.recv(1000)


def http_large(target: Target) -> bytes:
    return post(target, b"/jobs", b'{"type":"H","args":["%b"]}' % (b"x" * 30 * MIB))


def http_batch(target: Target) -> bytes:
    job = b'{"type":"H","args":["%b"]}' % (b"x" * 3_000)
    return post(target, b"/jobs/batch", b'{"jobs":[%b]}' % b",".join([job] * 9_000))


def doubtful(target: Target) -> bytes:
    with target.client() as client:
        return client.raw_call(b"PUSH " + hostile.repeated(b'{"":0}', 31 * MIB))


def unfinished(target: Target) -> bytes:
    with target.client() as client:
        client.socket.sendall(b'PUSH {"jid":"' + b"x" * 30 * MIB)
        target.hold()
        return b""


HONEST: list[Attack] = [large, bulk, small_bulk, http_large, http_batch]
ATTACKS: list[Attack] = [*HONEST, doubtful, unfinished]


def attacked(attack: Attack, target: Target) -> bytes:
    """What it was answered; nothing where it was cut off in the middle."""
    try:
        return attack(target)
    except (OSError, ServerError):
        return b""


def peak(sidecar: SidecarProcess) -> float:
    """MiB in RAM, at most so far."""
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Neighbour:
    """Pushes one job after the other, until stopped."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self._sidecar = sidecar
        self._over = threading.Event()
        self.replies: Counter[bytes] = Counter()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._sidecar.client(timeout=30) as client:
            number = 0
            while not self._over.wait(0.005):
                number += 1
                self.replies[client.raw_call(b"PUSH " + hostile.job(f"neighbour-{number:08d}"))] += 1

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ack", ["disk", "memory", "upstream"])
def test_whatever_they_send_memory_is_bounded(sidecar_process: SidecarFactory, ack: str) -> None:
    with embedded_in_thread() as server:
        sidecar = sidecar_process(f"tcp://127.0.0.1:{server.port}", {"SIDECAR_ACK": ack})
        neighbour = Neighbour(sidecar)
        try:
            seen = {}
            for attack in ATTACKS:
                targets = [Target(sidecar.port, sidecar.http_port, random.Random(seed)) for seed in range(TOGETHER)]
                with ThreadPoolExecutor(TOGETHER) as pool:
                    answers = list(pool.map(partial(attacked, attack), targets))
                seen[attack.__name__] = round(peak(sidecar))
                if attack in HONEST and ack == "disk":
                    assert [answer for answer in answers if not answer.startswith(GOOD)] == []
        finally:
            neighbour.stop()
        print(f"MiB: {seen}")
        assert peak(sidecar) < 64 + ROOM
        if ack != "upstream":  # there the slowness of Faktory is everybody's
            assert set(neighbour.replies) == {OK}


async def send_all(client: Client, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):  # it was refused
        await client.stream.send_all(data)


async def test_who_must_wait_too_long_is_told_and_small_ones_never_wait(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path) as running:
        slow = [await running.connect() for _ in range(3)]
        unfinished = b'PUSH {"jid":"' + b"x" * (POOL - MIB)
        async with trio.open_nursery() as nursery:
            await send_all(slow[0], unfinished)
            await running.until(lambda inner: inner.budget.used >= len(unfinished))
            for client in slow[1:]:
                nursery.start_soon(send_all, client, unfinished)
            with trio.fail_after(2 * (WAIT + TURN)):
                first = await slow[0].reply()
            neighbour = await running.connect()
            assert await neighbour.call(push("beside-them")) == OK
            assert first.startswith(b"-ERR not sent: memory full: it takes too long to arrive, and others wait")
            assert await slow[0].reply() == b""
            assert running.inner.budget.used <= POOL + MAX_LINE
            assert running.inner.counts.refused["full"] >= 1
            nursery.cancel_scope.cancel()
        for client in (*slow, neighbour):
            await client.stream.aclose()
        await running.until(lambda inner: inner.budget.used == 0)
