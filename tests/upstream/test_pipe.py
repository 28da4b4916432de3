"""The n-th reply belongs to the n-th command, and each command has exactly one outcome."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from sidecar.upstream.pipe import SEND_CHUNK, Pipe, PipeLost
from tests.upstream.far_end import connection


class Outcomes:
    """What became of each command."""

    def __init__(self) -> None:
        self.of: dict[int, bytes | None] = {}
        self.order: list[int] = []

    def __call__(self, number: int, reply: bytes | None) -> None:
        assert number not in self.of, "two outcomes"
        self.of[number] = reply
        self.order.append(number)


@pytest.fixture
def outcomes() -> Outcomes:
    return Outcomes()


async def run(pipe: Pipe, ended: list[str]) -> None:
    """Run a pipe and note why it ended."""
    try:
        await pipe.run()
    except PipeLost as error:
        ended.append(str(error))


def send(pipe: Pipe, outcomes: Outcomes, *numbers: int) -> None:
    for number in numbers:
        pipe.send(b"COMMAND %d\r\n" % number, lambda reply, number=number: outcomes(number, reply))  # type: ignore[misc]


@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
async def test_replies_belong_to_commands_by_their_order_however_they_are_cut(
    step: int, nursery: trio.Nursery, outcomes: Outcomes
) -> None:
    connected, far = connection()
    pipe = Pipe(connected)
    nursery.start_soon(run, pipe, [])
    send(pipe, outcomes, 0, 1, 2, 3)
    assert [await far.line() for _ in range(4)] == [b"COMMAND %d" % number for number in range(4)]
    replies = [b"+OK\r\n", b"$5\r\na\r\nbc\r\n", b"$-1\r\n", b"-ERR no\r\n"]
    said = b"".join(replies)
    for start in range(0, len(said), step):
        await far.say(said[start : start + step])
    await trio.testing.wait_all_tasks_blocked()
    assert outcomes.of == dict(enumerate(replies))
    assert pipe.owed == 0


async def test_what_is_owed_when_the_connection_ends_is_told_so_in_order(
    nursery: trio.Nursery, outcomes: Outcomes
) -> None:
    connected, far = connection()
    pipe, ended = Pipe(connected), list[str]()
    nursery.start_soon(run, pipe, ended)
    send(pipe, outcomes, 0, 1, 2)
    await far.line()
    await far.say(b"+OK\r\n$100\r\ncut off")
    await far.end()
    await trio.testing.wait_all_tasks_blocked()
    assert (outcomes.of, outcomes.order) == ({0: b"+OK\r\n", 1: None, 2: None}, [0, 1, 2])
    assert ended == ["closed by upstream"]
    assert pipe.lost == "closed by upstream"
    send(pipe, outcomes, 3)
    assert outcomes.of[3] is None


async def test_a_cancelled_pipe_tells_what_is_owed_and_closes(nursery: trio.Nursery, outcomes: Outcomes) -> None:
    connected, far = connection()
    pipe = Pipe(connected)
    with trio.CancelScope() as scope:
        nursery.start_soon(_cancelled_within, scope, pipe)
        await trio.testing.wait_all_tasks_blocked()
        send(pipe, outcomes, 0)
        assert await far.line() == b"COMMAND 0"
        scope.cancel()
        await trio.lowlevel.checkpoint_if_cancelled()
    with trio.fail_after(5):
        assert await far.line() == b""
    assert outcomes.of == {0: None}


async def _cancelled_within(scope: trio.CancelScope, pipe: Pipe) -> None:
    async with trio.open_nursery() as inner:
        inner.start_soon(run, pipe, [])
        while not scope.cancel_called:  # noqa: ASYNC110 - the other task's scope has no event
            await trio.sleep(0.001)
        inner.cancel_scope.cancel()


async def test_a_reply_that_nobody_asked_for_ends_the_connection(nursery: trio.Nursery) -> None:
    connected, far = connection()
    pipe, ended = Pipe(connected), list[str]()
    nursery.start_soon(run, pipe, ended)
    await far.say(b"+OK\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert len(ended) == 1
    assert "nobody asked for" in ended[0]


async def test_an_unasked_reply_goes_to_who_wants_it_also_when_it_came_with_the_handshake(
    nursery: trio.Nursery,
) -> None:
    unasked: list[bytes] = []
    connected, far = connection(b"-ERR too many connections\r\n")
    nursery.start_soon(run, Pipe(connected, unasked=unasked.append), [])
    await far.say(b"-ERR shutdown in progress\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert unasked == [b"-ERR too many connections\r\n", b"-ERR shutdown in progress\r\n"]


async def test_what_is_no_reply_ends_the_connection(nursery: trio.Nursery, outcomes: Outcomes) -> None:
    connected, far = connection()
    pipe, ended = Pipe(connected), list[str]()
    nursery.start_soon(run, pipe, ended)
    send(pipe, outcomes, 0)
    await far.say(b"HTTP/1.1 400 Bad Request\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert len(ended) == 1
    assert ended[0].startswith("upstream broke the protocol: ")
    assert outcomes.of == {0: None}


async def test_commands_are_sent_whole_and_in_order_whatever_their_size(
    nursery: trio.Nursery, outcomes: Outcomes
) -> None:
    connected, far = connection()
    pipe = Pipe(connected)
    nursery.start_soon(run, pipe, [])
    commands = [b"x" * size for size in (1, SEND_CHUNK - 1, SEND_CHUNK, 3 * SEND_CHUNK, 2, 3)]
    for command in commands:
        pipe.send(command + b"\r\n", lambda reply: None)
    assert [await far.line() for _ in commands] == commands


async def test_the_time_of_a_reply_counts_from_the_later_of_sending_and_the_last_reply(
    nursery: trio.Nursery, outcomes: Outcomes, autojump_clock: trio.abc.Clock
) -> None:
    connected, far = connection()
    pipe = Pipe(connected)
    nursery.start_soon(run, pipe, [])
    start = trio.current_time()
    await trio.sleep(3.0)
    send(pipe, outcomes, 0)
    assert pipe.owed_since == start + 3.0
    await trio.sleep(1.0)
    send(pipe, outcomes, 1)
    assert pipe.owed_since == start + 3.0
    await far.say(b"+OK\r\n")
    await trio.sleep(1.0)
    assert pipe.owed_since == start + 4.0
