"""Time stands still for a process that is frozen, and what has come is read before anything is judged."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from sidecar.clock import LOOK_EVERY, MOST_AT_ONCE, RunningClock, for_threads
from sidecar.intake import Deadlines
from sidecar.protocol.handshake import Greeting
from sidecar.protocol.replies import ReplyReader
from sidecar.upstream.dial import Connected
from sidecar.upstream.pipe import Pipe


class Freezer:
    """A clock that goes on, by itself and by what the test adds."""

    def __init__(self) -> None:
        self.added = 0.0
        self.clock = RunningClock(self.real)

    def real(self) -> float:
        return time.monotonic() + self.added

    def run(self, test: Callable[[], Awaitable[None]]) -> None:
        """Run a test on this clock."""
        trio.run(test, clock=self.clock)


@pytest.fixture
def freezer() -> Freezer:
    return Freezer()


def test_a_freeze_counts_for_a_moment_only(freezer: Freezer) -> None:
    gaps: list[float] = []
    freezer.clock.frozen = gaps.append
    for _ in range(3):
        before = freezer.clock.current_time()
        freezer.added += 3_600.0
        assert freezer.clock.current_time() - before == pytest.approx(MOST_AT_ONCE, abs=0.1)
    assert gaps == pytest.approx([3_600.0] * 3, abs=0.1)


def test_less_than_that_counts_as_it_is(freezer: Freezer) -> None:
    before = freezer.clock.current_time()
    for _ in range(10):
        freezer.added += MOST_AT_ONCE * 0.9
        freezer.clock.current_time()
    assert freezer.clock.current_time() - before == pytest.approx(MOST_AT_ONCE * 9, abs=0.1)


def test_it_is_looked_at_often_however_long_there_is_nothing_to_do(freezer: Freezer) -> None:
    assert freezer.clock.deadline_to_sleep_time(math.inf) == LOOK_EVERY
    assert freezer.clock.deadline_to_sleep_time(freezer.clock.current_time() - 5.0) < 0
    assert LOOK_EVERY < MOST_AT_ONCE


def test_timers_go_on_where_they_were(freezer: Freezer) -> None:
    async def test() -> None:
        fired: list[float] = []

        async def timer(seconds: float) -> None:
            await trio.sleep(seconds)
            fired.append(seconds)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(timer, 0.5)
            nursery.start_soon(timer, 15.0)
            await trio.testing.wait_all_tasks_blocked()
            freezer.added += 100.0
            await trio.sleep(0.05)
            assert fired == [0.5]
            nursery.cancel_scope.cancel()

    freezer.run(test)


def test_other_threads_see_no_freeze_either(freezer: Freezer) -> None:
    async def test() -> None:
        now = for_threads()
        before = await trio.to_thread.run_sync(now)
        freezer.added += 100.0
        assert MOST_AT_ONCE <= await trio.to_thread.run_sync(now) - before < MOST_AT_ONCE + 0.5

    freezer.run(test)


def pair() -> tuple[trio.socket.SocketType, socket.socket]:
    """A connection; what its far end sends is there before the event loop has another turn."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return trio.socket.from_stdlib_socket(ours), theirs


class Answer:
    """A command that is owed an answer."""

    answered = False
    expired = False

    def expire(self) -> None:
        self.answered = self.expired = True


@pytest.mark.parametrize("turn", range(12))
def test_an_answer_that_is_there_counts_before_the_time_that_is_over(turn: int, freezer: Freezer) -> None:
    """Both are due in one turn of the event loop, whose order is left to chance."""
    del turn

    async def test() -> None:
        deadlines, owed = Deadlines(0.5), Answer()
        ours, theirs = pair()

        async def reader() -> None:
            await ours.recv(10)
            owed.answered = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.run)
            nursery.start_soon(reader)
            deadlines.add(owed)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send(b"reply")
            freezer.added += 60.0
            await trio.sleep(0.05)
            assert owed.answered
            assert not owed.expired
            nursery.cancel_scope.cancel()
        ours.close()
        theirs.close()

    freezer.run(test)


@pytest.mark.parametrize("turn", range(12))
def test_a_peer_whose_reply_is_there_is_not_silent(turn: int, freezer: Freezer) -> None:
    del turn

    async def test() -> None:
        near, far = pair()
        pipe = Pipe(Connected(trio.SocketStream(near), Greeting(2), ReplyReader()))
        silences: list[float] = []

        async def watch() -> None:
            await trio.sleep(0.5)
            silences.append(await pipe.silent_for())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pipe.run)
            pipe.send(b"INFO\r\n", lambda reply: None)
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            far.send(b"+OK\r\n")
            freezer.added += 60.0
            await trio.sleep(0.05)
            assert len(silences) == 1
            assert silences[0] < 0.5
            nursery.cancel_scope.cancel()
        far.close()

    freezer.run(test)
