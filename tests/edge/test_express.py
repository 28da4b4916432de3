"""Connections that the journal's thread reads: no client can tell, whatever it says next and whatever the disk does."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from sidecar import turns
from sidecar.app import Sidecar
from sidecar.batching import Entry
from sidecar.journal.store import Change, Store
from sidecar.producers import express
from sidecar.producers.channel import PlainChannel
from sidecar.protocol.jobs import Job
from tests.edge.running import Client, Running, faktory, push, sidecar

OK = b"+OK\r\n"


def lent(inner: Sidecar) -> int:
    """How many connections the thread has."""
    return inner.express.journal.inlet.sources if inner.express is not None else 0


async def rider(running: Running, name: str) -> Client:
    """A client whose connection is lent."""
    before = lent(running.inner)
    client = await running.connect()
    assert await client.call(push(f"{name}-first")) == OK
    await running.until(lambda inner: lent(inner) > before)
    return client


@contextmanager
def hung_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commits don't come to an end within the block."""
    goes_on, commit = threading.Event(), Store.commit

    def hang(store: Store, change: Change) -> int:
        goes_on.wait(30)
        return commit(store, change)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "commit", hang)
        try:
            yield
        finally:
            goes_on.set()


async def test_only_a_disk_mode_producer_that_pushed_and_is_owed_nothing_is_lent(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        silent = await running.connect()
        worker = await running.connect(b'HELLO {"v":2,"wid":"worker-1"}\r\n')
        assert await worker.call(push("of-a-worker")) == OK
        client = await rider(running, "lent")
        assert [await client.call(push(f"lent-{number:04}")) for number in range(50)] == [OK] * 50
        assert lent(running.inner) == 1
        await running.until(lambda inner: inner.intake.owed == 0)
        assert len(server.stored()) == 52
        assert await silent.call(b"NOPE") == b"-ERR unknown command NOPE\r\n"


@pytest.mark.parametrize("mode", ["memory", "upstream"])
async def test_nothing_is_lent_where_nothing_is_stored(tmp_path: Path, mode: str) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        client = await running.connect()
        assert [await client.call(push(f"not-lent-{number}")) for number in range(5)] == [OK] * 5
        assert running.inner.express is None


async def test_whatever_else_a_lent_connection_says_is_answered_as_ever(tmp_path: Path) -> None:
    others = [
        (b"NOPE\r\n", b"-ERR unknown command NOPE\r\n"),
        (b'PUSH {"jid":"no-type-here","jobtype":"","args":[]}\r\n', b"-ERR jobs must have a jobtype parameter\r\n"),
        (push("a-unique-one", ',"custom":{"unique_for":60}'), OK),
        (push("bare-line-feed").replace(b"\r\n", b"\n"), OK),
        (b'PUSHB [{"jid":"in-a-bulk-1","jobtype":"T","args":[]}]\r\n', b"$2\r\n{}\r\n"),
        (b"PUSH {not json}\r\n", b"-ERR invalid JSON: "),
        (b"\r\n", b"-ERR unknown command "),
    ]
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        client = await rider(running, "talker")
        for number, (line, expected) in enumerate(others):
            replies = [await client.call(push(f"plain-before-{number}")), await client.call(line)]
            assert replies[0] == OK
            assert replies[1].startswith(expected[:40]), (line, replies)
            assert await client.call(push(f"plain-after-{number}")) == OK
            await running.until(lambda inner: lent(inner) == 1)
            await client.send(push(f"mixed-1-{number}") + line + push(f"mixed-2-{number}"))
            mixed = [await client.reply() for _ in range(3)]
            assert [mixed[0], mixed[2]] == [OK, OK], (line, mixed)
            assert mixed[1].startswith(expected[:40])


async def test_a_push_in_pieces_and_many_at_once(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        client = await rider(running, "pieces")
        line = push("in-three-pieces")
        for piece in (line[:3], line[3:20], line[20:]):
            await client.send(piece)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await client.reply() == OK
        await running.until(lambda inner: lent(inner) == 1)
        await client.send(b"".join(push(f"of-very-many-{number:05}") for number in range(5_000)))
        assert [await client.reply() for _ in range(5_000)] == [OK] * 5_000
        await running.until(lambda inner: inner.intake.owed == 0)
        assert len({job["jid"] for job in server.stored()}) == 5_002


async def test_nobody_is_served_at_the_expense_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(express, "MOST_BYTES", 10)
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        greedy = [await rider(running, f"greedy-{number}") for number in range(4)]
        modest = await rider(running, "modest")

        async def flood(client: Client, name: str) -> None:
            for number in range(100_000):
                assert await client.call(push(f"{name}-{number:06}")) == OK

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(greedy):
                nursery.start_soon(flood, client, f"greedy-{number}")
            for number in range(50):
                assert await modest.call(push(f"modest-{number:04}")) == OK
            nursery.cancel_scope.cancel()
        assert server.url


async def test_the_end_of_a_lent_connection(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        polite, half, rude = [await rider(running, name) for name in ("polite", "half", "rude")]
        await polite.send(push("polite-last") + b"END\r\n")
        assert [await polite.reply(), await polite.reply()] == [OK, b""]
        await half.send(push("half-last"))
        await half.half_close()
        assert [await half.reply(), await half.reply()] == [OK, b""]
        assert isinstance(rude.stream, trio.SocketStream)
        rude.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await rude.send(push("rude-last"))
        await rude.stream.aclose()
        await running.until(lambda inner: inner.counts.producers == 0 and lent(inner) == 0)
        await running.until(lambda inner: inner.intake.owed == 0)
        assert {"polite-last", "half-last"} <= {job["jid"] for job in server.stored()}


async def test_a_flush_takes_every_job_that_its_client_knows_to_be_accepted(tmp_path: Path) -> None:
    """The event loop hears of a job later than its producer: a FLUSH must not overtake it."""
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        producer, other = await rider(running, "flushed"), await running.connect()
        for number in range(100):
            assert await producer.call(push(f"flushed-{number:04}")) == OK
            assert await other.call(b"FLUSH") == OK
            assert server.stored() == []
        await running.until(lambda inner: inner.intake.owed == 0)
        assert server.stored() == []


async def test_the_linger_runs_from_the_commit_whenever_the_loop_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[Entry] = []
    thread_clock = SimpleNamespace(monotonic=time.monotonic)
    loop_clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 7.0)
    monkeypatch.setattr(turns, "time", thread_clock)
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        inner = running.inner
        journal = inner.journal
        assert journal is not None
        monkeypatch.setattr(inner.forwarder, "offer", lambda entries, *, linger: offered.extend(entries))
        monkeypatch.setattr(journal, "append_here", lambda payloads, origins, done, at_once: (at_once(), 1)[1])
        turn = turns.LentTurn(inner.intake, journal)
        turn.add([Job("heard-late", b"{}")], inner.intake.origin().epoch, lambda verdicts: None, lambda: None)
        turn.hand_over()
        inner.intake.heard_of(turn)
        monkeypatch.setattr(turns, "time", loop_clock)
        inner.intake.stored(turn, None)
        assert 7.0 <= trio.current_time() - offered[0].at < 60.0


async def test_a_hung_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the thread had read is refused in time, and what follows is answered behind it by the event loop."""
    monkeypatch.setattr(express, "STALLED", 0.1)
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        running.inner.deadlines.limit = 1.5
        caught, idle = await rider(running, "caught"), await rider(running, "idle")
        with hung_disk(monkeypatch):
            await caught.send(push("caught-by-the-disk"))
            await running.until(lambda inner: lent(inner) == 0)
            assert await idle.call(b"NOPE") == b"-ERR unknown command NOPE\r\n"
            await caught.send(b"NOPE\r\n")
            assert (await caught.reply()).startswith(b"-ERR in doubt: the journal's disk did not answer in time")
            assert await caught.reply() == b"-ERR unknown command NOPE\r\n"
        assert await caught.call(push("caught-again")) == OK
        await running.until(lambda inner: lent(inner) == 1)
        assert await caught.call(push("caught-later")) == OK
        await running.until(lambda inner: inner.intake.owed == 0)
        stored = [job["jid"] for job in server.stored()]
        assert sorted(stored) == ["caught-again", "caught-by-the-disk", "caught-first", "caught-later", "idle-first"]


async def test_what_came_while_the_thread_was_stuck_is_answered_in_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(express, "STALLED", 0.9)
    monkeypatch.setattr(express, "LOOK_EVERY", 1.0)
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        running.inner.deadlines.limit = 1.5
        first, second = await rider(running, "stuck"), await rider(running, "behind")
        assert running.inner.express is not None
        journal = running.inner.express.journal
        with hung_disk(monkeypatch):
            await first.send(push("stuck-second"))
            await running.until(lambda _: journal.busy_for > 0.05)
            started = trio.current_time()
            assert (await second.call(push("behind-second"))).startswith(b"-ERR in doubt: the journal's disk")
            assert trio.current_time() - started < 2.0  # 2.4 and more, if its time began when it was read
        assert server.url


async def test_a_disk_that_is_back_in_time_answers_what_was_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(express, "STALLED", 0.1)
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        client = await rider(running, "patient")
        with hung_disk(monkeypatch):
            await client.send(push("patient-second"))
            await running.until(lambda inner: lent(inner) == 0)
            await client.send(push("patient-third") + b"NOPE\r\n")
        assert [await client.reply() for _ in range(3)] == [OK, OK, b"-ERR unknown command NOPE\r\n"]
        assert server.url


async def test_a_stop_in_the_middle_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor stays until the thread is done with it; what was stored is there at the next start."""
    async with faktory() as server, sidecar(server.url, tmp_path, link=False, SIDECAR_ACK="disk") as running:
        client = await rider(running, "stopped")
        with hung_disk(monkeypatch):
            await client.send(push("stopped-second"))
            assert running.inner.express is not None
            journal = running.inner.express.journal
            await running.until(lambda _: journal.busy_for > 0.05)
            await client.half_close()
    assert journal.waiting == 2
    found = {row.payload[8:22] for row in Store(tmp_path / "journal").page(0, 10, 1 << 20)[0]}
    assert found == {b'stopped-first"', b"stopped-second"}


async def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        client = await rider(running, "refused")

        def fail(*_: object) -> int:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(Store, "commit", fail)
            patched.setattr(Store, "probe", fail)
            reply = await client.call(push("refused-by-the-disk"))
            assert reply.startswith(b"-ERR in doubt: it may be enqueued: commit failed: disk I/O error")
        await running.until(lambda inner: inner.intake.refusal_reason() is None)
        assert await client.call(push("refused-no-more")) == OK
        await running.until(lambda inner: inner.intake.owed == 0 and lent(inner) == 1)
        assert {job["jid"] for job in server.stored()} == {"refused-first", "refused-no-more"}


async def test_a_client_that_does_not_read_its_replies(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        client = await rider(running, "deaf")
        assert isinstance(client.stream, trio.SocketStream)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        jobs = 40_000
        async with trio.open_nursery() as nursery:
            for start in range(0, jobs, 400):
                lines = b"".join(push(f"deaf-{number:06}") for number in range(start, start + 400))
                with trio.move_on_after(1.0) as patience:
                    await client.send(lines)
                if patience.cancelled_caught:
                    break
            else:
                start += 400
            nursery.cancel_scope.cancel()
        for _ in range(start):
            assert await client.reply() == OK
        assert server.url


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def test_a_lent_socket_is_closed_when_it_is_back() -> None:
    ours, theirs = pair()
    channel = PlainChannel(ours, lambda _: None)
    loan = channel.lend(b"hello")
    assert loan is not None
    assert channel.lend(b"another") is None
    channel.close()
    assert ours.fileno() >= 0
    assert theirs.recv(10) == b""
    loan.use()
    channel.take_back(loan, b"hello")
    assert ours.fileno() < 0
    theirs.close()


async def test_what_is_written_meanwhile_leaves_behind_what_was_lent() -> None:
    ours, theirs = pair()
    channel = PlainChannel(ours, lambda _: None)
    for use, first in ((True, b"lent"), (False, b"own!")):
        loan = channel.lend(b"lent")
        assert loan is not None
        channel.write(b" later")
        if use:
            loan.use()
        channel.take_back(loan, b"own!")
        assert theirs.recv(100) == first + b" later"
    channel.close()
    theirs.close()


async def test_a_loan_that_is_used_up_needs_no_notice() -> None:
    ours, theirs = pair()
    channel = PlainChannel(ours, lambda _: None)
    first = channel.lend(b"1")
    assert first is not None
    first.use()
    second = channel.lend(b"2")
    assert second is not None
    channel.take_back(first, b"1")
    second.use()
    channel.take_back(second, b"2")
    assert theirs.recv(10) == b"12"
    channel.close()
    assert ours.fileno() < 0
    theirs.close()


async def test_what_the_kernel_does_not_take_is_sent_later(nursery: trio.Nursery) -> None:
    ours, theirs = pair()
    channel = PlainChannel(ours, nursery.start_soon)
    data = bytes(1_000) * 2_000
    loan = channel.lend(data)
    assert loan is not None
    loan.use()
    assert not loan.over
    assert channel.lend(b"x") is None
    channel.take_back(loan, data)
    received = await trio.to_thread.run_sync(lambda: _read(theirs, len(data)))
    assert received == data
    await channel.flushed()
    channel.close()
    theirs.close()


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(1 << 20)
    return data
