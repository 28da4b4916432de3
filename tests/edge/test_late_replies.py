"""After a freeze that is longer than clients wait: no late reply, and what they sent is carried out all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from sidecar.clock import RunningClock
from sidecar.demo.embedded import Command, Reply
from tests.edge.running import OK, PATIENCE, Client, Running, faktory, lent, push, sidecar
from tests.test_clock import Freezer

LONG, SHORT = 17.0, 3.0
"""Seconds."""
MODES = ["disk", "memory", "upstream"]


def on(freezer: Freezer, test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a clock that can be frozen."""
    assert isinstance(freezer.clock, RunningClock)
    freezer.run(test)


@pytest.fixture
def freezer() -> Freezer:
    return Freezer()


async def ready(running: Running, name: str) -> Client:
    """A producer that has pushed; its connection is lent where that is done."""
    before = lent(running.inner)
    client = await running.connect()
    assert await client.call(push(name)) == OK
    if running.inner.desk is not None:
        await running.until(lambda inner: lent(inner) > before)
    return client


def say(client: Client, data: bytes) -> None:
    """Send without giving the event loop a turn."""
    assert isinstance(client.stream, trio.SocketStream)
    assert client.stream.socket._sock.send(data) == len(data)  # type: ignore[attr-defined]


async def arrives(server_queue: Callable[[], list[str]], jid: str) -> None:
    with trio.fail_after(PATIENCE):
        while jid not in server_queue():  # noqa: ASYNC110 - upstream's state has no event
            await trio.sleep(0.01)


@pytest.mark.parametrize("ack", MODES)
def test_what_lay_in_the_socket_is_carried_out_and_not_answered(ack: str, freezer: Freezer, tmp_path: Path) -> None:
    async def test() -> None:
        async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=ack) as running:
            late, idle = await ready(running, "first-of-one"), await ready(running, "first-of-two")
            freezer.added += LONG  # first: the journal's thread, which reads for a lent connection, doesn't stand still
            say(late, push("while-frozen"))
            assert await late.reply() == b""
            assert await idle.call(push("afterwards")) == OK
            await arrives(lambda: [job["jid"] for job in server.stored()], "while-frozen")
            await late.stream.aclose()
            await running.until(lambda inner: inner.counts.producers == 1)

    on(freezer, test)


@pytest.mark.parametrize("ack", MODES)
def test_after_a_short_freeze_all_are_answered(ack: str, freezer: Freezer, tmp_path: Path) -> None:
    async def test() -> None:
        async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=ack) as running:
            client = await ready(running, "first-of-all")
            freezer.added += SHORT
            say(client, push("while-frozen"))
            assert await client.reply() == OK

    on(freezer, test)


def test_what_was_owed_before_is_not_answered_late(freezer: Freezer, tmp_path: Path) -> None:
    """A reply of upstream's, which a Go client would take for that to its next command."""
    arrived, answer = trio.Event(), trio.Event()

    async def hold(command: Command) -> Reply | None:
        if command.verb == "BEAT":
            arrived.set()
            await answer.wait()
        return None

    async def test() -> None:
        async with faktory(intercept=hold) as server, sidecar(server.url, tmp_path) as running:
            client = await running.connect(b'HELLO {"v":2,"wid":"frozen"}\r\n')
            await client.send(b'BEAT {"wid":"frozen"}\r\n')
            await arrived.wait()
            freezer.added += LONG
            answer.set()
            assert await client.reply() == b""
            await client.stream.aclose()
            await running.until(lambda inner: inner.counts.consumers == 0)
            await running.until(lambda _: "frozen" not in server.state.workers)

    on(freezer, test)
