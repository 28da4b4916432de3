"""A worker's connections upstream: the first greets first, the others together, and none that nobody wants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from sidecar.demo.embedded import Command, Reply
from sidecar.upstream import dial
from tests.edge.running import OK, Client, Running, faktory, sidecar

MANY = 30
SLOW = 0.2
"""Seconds that upstream takes for a HELLO."""


class Greetings:
    """Watches the HELLOs that arrive upstream, and answers each as it is told to.

    Args:
        how: gets the number of the HELLO, from 1.
    """

    def __init__(self, how: Callable[[int], Awaitable[Reply | None]]) -> None:
        self._how = how
        self.seen = 0
        self.open = 0
        self.most = 0  # that were unanswered together
        self.before_the_first = 0  # that came before any was accepted
        self._accepted = False

    async def __call__(self, command: Command) -> Reply | None:
        if command.verb != "HELLO" or b'"wid"' not in command.line:
            return None
        self.seen += 1
        self.before_the_first += not self._accepted
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            reply = await self._how(self.seen)
        finally:
            self.open -= 1
        self._accepted = self._accepted or reply is None
        return reply


async def slowly(number: int) -> Reply | None:
    del number
    await trio.sleep(SLOW)
    return None


def hello(name: str) -> bytes:
    return b'HELLO {"v":2,"wid":"%s"}\r\n' % name.encode()


async def greet(running: Running, name: str) -> Client:
    """A consumer that has sent its HELLO."""
    client = await running.connect(None)
    assert (await client.reply()).startswith(b"+HI {")
    await client.send(hello(name))
    return client


async def test_one_greets_first_and_then_all_the_others_together(tmp_path: Path) -> None:
    all_there = trio.Event()

    async def together(number: int) -> Reply | None:
        if number == 1:
            await trio.sleep(SLOW)
            return None
        if number == MANY:
            all_there.set()
        await all_there.wait()
        return None

    greetings = Greetings(together)
    async with faktory(intercept=greetings) as server, sidecar(server.url, tmp_path) as running:
        clients = [await greet(running, "pool") for _ in range(MANY)]
        assert [await client.reply() for client in clients] == [OK] * MANY
        assert greetings.before_the_first == 1
        assert greetings.most == MANY - 1


async def test_once_one_stands_a_slow_one_holds_up_nobody(tmp_path: Path) -> None:
    hold = trio.Event()

    async def second_hangs(number: int) -> Reply | None:
        if number == 2:
            await hold.wait()
        return None

    greetings = Greetings(second_hangs)
    async with faktory(intercept=greetings) as server, sidecar(server.url, tmp_path) as running:
        first = await greet(running, "grows")
        assert await first.reply() == OK
        second = await greet(running, "grows")
        await running.until(lambda _: greetings.seen == 2)
        third = await greet(running, "grows")
        assert await third.reply() == OK
        hold.set()
        assert await second.reply() == OK
        assert await first.call(b'BEAT {"wid":"grows"}') == OK


async def test_when_all_have_ended_the_next_one_is_the_first_again(tmp_path: Path) -> None:
    greetings = Greetings(slowly)
    async with faktory(intercept=greetings) as server, sidecar(server.url, tmp_path) as running:
        before = await greet(running, "again")
        assert await before.reply() == OK
        await before.stream.aclose()
        await running.until(lambda inner: inner.counts.consumers == 0)
        greetings.most = 0
        clients = [await greet(running, "again") for _ in range(3)]
        await running.until(lambda _: greetings.seen == 2)
        await trio.sleep(SLOW / 2)
        assert greetings.seen == 2
        assert [await client.reply() for client in clients] == [OK] * 3


@pytest.mark.parametrize("close", [True, False])
async def test_when_the_first_is_refused_the_next_one_greets_first(close: bool, tmp_path: Path) -> None:
    async def refuse_two(number: int) -> Reply | None:
        await trio.sleep(SLOW)
        if number > 2:
            return None
        return Reply(close=True) if close else Reply(b"-ERR Invalid something\r\n", close=True)

    greetings = Greetings(refuse_two)
    async with faktory(intercept=greetings) as server, sidecar(server.url, tmp_path) as running:
        clients = [await greet(running, "unlucky") for _ in range(6)]
        replies = [await client.reply() for client in clients]
        assert [reply == OK for reply in replies] == [False, False, True, True, True, True]
        assert greetings.before_the_first == 3


async def test_when_the_first_leaves_the_next_one_greets_first_at_once(tmp_path: Path) -> None:
    async def first_hangs(number: int) -> Reply | None:
        if number == 1:
            await trio.sleep(60)
        return None

    greetings = Greetings(first_hangs)
    async with faktory(intercept=greetings) as server, sidecar(server.url, tmp_path) as running:
        first = await greet(running, "impatient")
        await running.until(lambda _: greetings.seen == 1)
        others = [await greet(running, "impatient") for _ in range(3)]
        started = trio.current_time()
        await first.stream.aclose()
        assert [await client.reply() for client in others] == [OK] * 3
        assert trio.current_time() - started < 1.0


async def test_one_that_waits_for_longer_than_faktory_lets_it_greets_on_a_new_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "GREET_WITHIN", 0.1)

    async def first_is_slow(number: int) -> Reply | None:
        if number == 1:
            await trio.sleep(0.5)
        return None

    async with faktory(intercept=Greetings(first_is_slow)) as server, sidecar(server.url, tmp_path) as running:
        clients = [await greet(running, "patient") for _ in range(4)]
        await trio.sleep(0.3)
        assert server.state.connections <= 2  # the link and the first: nobody's connection waits unused
        assert [await client.reply() for client in clients] == [OK] * 4


async def test_what_is_opened_for_a_client_that_has_left_is_given_up(tmp_path: Path) -> None:
    """It comes again, and would count twice among upstream's connections."""
    greeted, ended = trio.Event(), trio.Event()

    async def never_answers(stream: trio.SocketStream) -> None:
        await stream.send_all(b'+HI {"v":2}\r\n')
        async for _ in stream:
            greeted.set()
        ended.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, never_answers, 0)
        upstream = f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with sidecar(upstream, tmp_path, link=False) as running:
            client = await greet(running, "gone")
            await greeted.wait()
            await client.stream.aclose()
            with trio.fail_after(2.0):
                await ended.wait()
        nursery.cancel_scope.cancel()


async def test_commands_that_come_before_the_greeting_is_answered_are_kept(tmp_path: Path) -> None:
    async with faktory(intercept=Greetings(slowly)) as server, sidecar(server.url, tmp_path) as running:
        client = await greet(running, "hasty")
        await trio.sleep(SLOW / 4)
        await client.send(b'BEAT {"wid":"hasty"}\r\nFE')
        await trio.sleep(SLOW / 4)
        await client.send(b"TCH nothing-here\r\nNOPE\r\n")
        await client.half_close()
        assert [await client.reply() for _ in range(4)] == [OK, OK, b"$-1\r\n", b"-ERR unknown command NOPE\r\n"]
