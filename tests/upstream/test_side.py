"""The connection that producers share: made when needed, ended when idle, never a command twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from sidecar.upstream.pipe import REPLY_TIMEOUT
from sidecar.upstream.side import IDLE_END, SideConnection
from tests.upstream.far_end import ScriptedDialer


class Shared:
    """The connection, its dialer, and what was answered."""

    def __init__(self) -> None:
        self.dialer = ScriptedDialer()
        self.side = SideConnection(self.dialer)  # type: ignore[arg-type]
        self.answers: list[bytes] = []


@pytest.fixture
async def shared(nursery: trio.Nursery) -> AsyncIterator[Shared]:
    shared = Shared()
    nursery.start_soon(shared.side.run)
    yield shared
    nursery.cancel_scope.cancel()


async def test_it_is_dialled_for_the_first_command_and_pipelines(
    shared: Shared, autojump_clock: trio.abc.Clock
) -> None:
    await trio.sleep(100)
    assert shared.dialer.times == []
    far = shared.dialer.accept()
    for verb in (b"ONE", b"TWO"):
        shared.side.send(verb, shared.answers.append)
    assert [await far.line(), await far.line()] == [b"ONE", b"TWO"]
    shared.side.send(b"THREE", shared.answers.append)
    assert await far.line() == b"THREE"
    await far.say(b"+1\r\n+2\r\n-ERR three\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert shared.answers == [b"+1\r\n", b"+2\r\n", b"-ERR three\r\n"]
    assert len(shared.dialer.times) == 1


async def test_what_could_not_be_sent_is_told_so(shared: Shared, autojump_clock: trio.abc.Clock) -> None:
    passed = shared.side.send(b"ONE", shared.answers.append)
    await trio.testing.wait_all_tasks_blocked()
    assert shared.answers == [b"-ERR not sent: Faktory can't be reached (connect: connection refused)\r\n"]
    assert not passed.sent


async def test_a_lost_command_is_in_doubt_and_not_sent_again(shared: Shared, autojump_clock: trio.abc.Clock) -> None:
    far = shared.dialer.accept()
    shared.side.send(b"ONE", shared.answers.append)
    assert await far.line() == b"ONE"
    await far.end()
    again = shared.dialer.accept()
    await trio.testing.wait_all_tasks_blocked()
    assert len(shared.answers) == 1
    assert shared.answers[0].startswith(b"-ERR in doubt: ")
    shared.side.send(b"TWO", shared.answers.append)
    assert await again.line() == b"TWO"


async def test_a_command_taken_back_while_it_is_dialled_is_not_sent(
    shared: Shared, autojump_clock: trio.abc.Clock
) -> None:
    shared.dialer.takes = 3.0
    far = shared.dialer.accept()
    first = shared.side.send(b"ONE", shared.answers.append)
    shared.side.send(b"TWO", shared.answers.append)
    await trio.sleep(1.0)
    first.dropped = True
    assert await far.line() == b"TWO"
    assert not first.sent


async def test_it_ends_politely_when_idle_and_is_dialled_again(shared: Shared, autojump_clock: trio.abc.Clock) -> None:
    far = shared.dialer.accept()
    shared.side.send(b"ONE", shared.answers.append)
    assert await far.line() == b"ONE"
    await far.say(b"+OK\r\n")
    start = trio.current_time()
    assert await far.line() == b"END"
    assert await far.line() == b""
    assert IDLE_END < trio.current_time() - start < IDLE_END + 2.5
    again = shared.dialer.accept()
    shared.side.send(b"TWO", shared.answers.append)
    assert await again.line() == b"TWO"
    assert shared.answers == [b"+OK\r\n"]


async def test_silence_ends_it(shared: Shared, autojump_clock: trio.abc.Clock) -> None:
    far = shared.dialer.accept()
    shared.side.send(b"ONE", shared.answers.append)
    assert await far.line() == b"ONE"
    start = trio.current_time()
    assert await far.line() == b""
    assert REPLY_TIMEOUT < trio.current_time() - start < REPLY_TIMEOUT + 2.5
    assert shared.answers[0].startswith(b"-ERR in doubt: ")


async def test_a_server_that_refuses_the_connection_as_such_ends_it(
    shared: Shared, autojump_clock: trio.abc.Clock
) -> None:
    """`too many connections` comes behind the handshake's +OK, before any command is read."""
    far = shared.dialer.accept()
    shared.side.send(b"ONE", shared.answers.append)
    assert await far.line() == b"ONE"
    await far.say(b"+OK\r\n-ERR shutdown in progress\r\n")
    await trio.testing.wait_all_tasks_blocked()
    again = shared.dialer.accept()
    shared.side.send(b"TWO", shared.answers.append)
    assert await again.line() == b"TWO"


async def test_when_the_connection_as_such_is_refused_the_first_command_has_the_words(
    shared: Shared, autojump_clock: trio.abc.Clock
) -> None:
    """They are what a client of its own would have been told, and no command was carried out."""
    words = b"-ERR too many connections: 2001\r\n"
    far = shared.dialer.accept(words)
    shared.side.send(b"ONE", shared.answers.append)
    shared.side.send(b"TWO", shared.answers.append)
    await trio.testing.wait_all_tasks_blocked()
    await far.end()
    await trio.testing.wait_all_tasks_blocked()
    assert shared.answers[0] == words
    assert shared.answers[1].startswith(b"-ERR in doubt: ")


async def test_a_command_that_comes_while_an_idle_connection_ends_goes_over_the_next(
    shared: Shared, autojump_clock: trio.abc.Clock
) -> None:
    far = shared.dialer.accept()
    shared.side.send(b"ONE", shared.answers.append)
    assert await far.line() == b"ONE"
    await far.say(b"+OK\r\n")
    assert await far.line() == b"END"
    again = shared.dialer.accept()
    shared.side.send(b"TWO", shared.answers.append)
    await far.end()
    assert await again.line() == b"TWO"
