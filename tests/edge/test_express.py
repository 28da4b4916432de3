"""Connections that the journal's thread reads, whatever the disk does."""

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

from sidecar.intake import turn as turn_module
from sidecar.jobs import Entry
from sidecar.journal.store import Change, Store
from sidecar.producers import express
from sidecar.producers.channel import PlainChannel
from sidecar.producers.express import Express
from sidecar.protocol.jobs import Job
from tests.edge.running import OK, faktory, lent, push, rider, sidecar


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


async def test_the_linger_runs_from_the_commit_whenever_the_loop_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[Entry] = []
    thread_clock = SimpleNamespace(monotonic=time.monotonic)
    loop_clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 7.0)
    monkeypatch.setattr(turn_module, "time", thread_clock)
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        inner = running.inner
        journal = inner.journal
        assert journal is not None
        monkeypatch.setattr(inner.forwarder, "offer", lambda entries, *, linger: offered.extend(entries))
        monkeypatch.setattr(journal, "append_here", lambda payloads, origins, done, at_once: (at_once(), 1)[1])
        turn = turn_module.LentTurn(inner.intake, journal)
        turn.add([Job("heard-late", b"{}")], inner.intake.origin().epoch, lambda verdicts: None, lambda: None)
        turn.hand_over()
        inner.intake.heard_of(turn)
        monkeypatch.setattr(turn_module, "time", loop_clock)
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
        assert isinstance(running.inner.desk, Express)
        journal = running.inner.desk.journal
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
            assert isinstance(running.inner.desk, Express)
            journal = running.inner.desk.journal
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
