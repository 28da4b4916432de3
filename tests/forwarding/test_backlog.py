"""A long queue: what it costs in memory, and what passes it."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import trio

from sidecar.forwarder.idranges import IdRanges, includes
from sidecar.jobs import Epoch
from sidecar.protocol.jobs import Job
from tests.edge.running import REFUSED, Running, faktory, push, sidecar

SMALL = {"SIDECAR_ACK": "disk", "SIDECAR_MEMORY_MAX_BYTES": 1 << 20}
"""Of 1 MiB half is for waiting jobs: fewer than a thousand of them."""
OK = b"+OK\r\n"


async def fill(running: Running, jobs: int, *, short_lived: bool) -> None:
    """Push jobs of one connection, or each of a connection of its own that is closed behind it."""
    pushed = [0]
    origin = running.inner.intake.origin()
    for number in range(jobs):
        job = Job(f"backlog-{number:06d}", b'{"jid":"backlog-%06d","jobtype":"T","args":[]}' % number)
        whose = running.inner.intake.origin() if short_lived else origin
        running.inner.intake.submit([job], whose, lambda _: pushed.__setitem__(0, pushed[0] + 1))
        if number % 500 == 0:
            await trio.lowlevel.checkpoint()
    await running.until(lambda _: pushed[0] == jobs)


async def test_jobs_of_connections_that_are_gone_take_no_memory(tmp_path: Path) -> None:
    """A producer that connects for each job, or HTTP: a million of them in an outage were a gigabyte."""
    async with sidecar(REFUSED, tmp_path, link=False, **SMALL) as running:
        await fill(running, 10_000, short_lived=True)
        gc.collect()
        assert running.inner.forwarder.backlog > 8_000
        assert sum(isinstance(each, Epoch) for each in gc.get_objects()) < 2_000


async def test_jobs_of_connections_that_are_gone_arrive_once_and_in_order(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, link=False, **SMALL) as running:
        await fill(running, 5_000, short_lived=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.inner.link.run)
            await running.until(lambda inner: inner.intake.owed == 0)
            nursery.cancel_scope.cancel()
        assert [job["jid"] for job in server.stored()] == [f"backlog-{number:06d}" for number in range(5_000)]
        assert running.inner.forwarder.backlog == 0


async def test_a_barrier_pipelined_behind_its_job_passes_a_backlog(tmp_path: Path) -> None:
    """The job is still on its way to the disk when the barrier comes."""
    async with faktory() as server, sidecar(server.url, tmp_path, link=False, **SMALL) as running:
        await fill(running, 5_000, short_lived=False)
        client = await running.connect()
        await client.send(push("child-of-a-worker") + push("second-child") + b"INFO\r\n")
        await running.until(lambda inner: inner.intake.owed == 5_002)
        slow = running.inner.forwarder
        slow._depth, slow._window = 1, 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.inner.link.run)
            assert [await client.reply(), await client.reply()] == [OK, OK]
            assert (await client.reply()).startswith(b"$")
            stored = [job["jid"] for job in server.stored()]
            nursery.cancel_scope.cancel()
        assert "child-of-a-worker" in stored
        assert stored.index("child-of-a-worker") < stored.index("second-child") < 4_000


def test_ranges_hold_what_was_added_and_not_taken() -> None:
    choice = random.Random(5)
    ranges, held, number = IdRanges(), set[int](), 0
    for _ in range(2_000):
        number += choice.choice((1, 1, 1, 2, 5))
        ranges.add(number, 1)
        held.add(number)
        if choice.random() < 0.1:
            last = choice.randint(max(0, number - 40), number + 2)
            taken = ranges.take_to(last)
            gone = {each for each in held if each <= last}
            assert [each for part in taken for each in part] == sorted(gone)
            assert all(includes(taken, each) == (each in gone) for each in range(last - 60, last + 3))
            held -= gone
    assert [each for part in ranges.take_to(number) for each in part] == sorted(held)
