"""The clock for all answers."""

from __future__ import annotations

import gc
import time
import weakref

import trio

from sidecar.intake import Deadlines


class Command:
    """Something that is owed an answer."""

    def __init__(self) -> None:
        self.answered = False
        self.expired_at: float | None = None

    def expire(self) -> None:
        assert not self.answered
        self.answered = True
        self.expired_at = trio.current_time()


async def test_each_is_expired_when_its_own_time_is_over(nursery: trio.Nursery, autojump_clock: trio.abc.Clock) -> None:
    deadlines = Deadlines(4.0)
    nursery.start_soon(deadlines.run)
    start = trio.current_time()
    first, answered, earlier = Command(), Command(), Command()
    deadlines.add(first)
    await trio.sleep(1.0)
    deadlines.add(answered)
    deadlines.add(earlier, since=start - 2.0)
    await trio.sleep(0.5)
    answered.answered = True
    await trio.sleep(10.0)
    assert (first.expired_at, earlier.expired_at, answered.expired_at) == (start + 4.0, start + 2.0, None)


async def test_one_whose_time_is_over_already_is_expired_at_once(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    deadlines = Deadlines(4.0)
    nursery.start_soon(deadlines.run)
    await trio.sleep(10.0)
    waits, late = Command(), Command()
    deadlines.add(waits)
    deadlines.add(late, since=trio.current_time() - 5.0)
    await trio.sleep(0.001)
    assert late.answered
    assert not waits.answered


async def test_what_is_answered_is_forgotten_also_behind_something_that_is_not() -> None:
    """An idle consumer's FETCH takes 2 s: the jobs that came meanwhile must not be held for it."""
    deadlines = Deadlines()
    fetch = Command()
    deadlines.add(fetch)
    alive = []
    for _ in range(50_000):
        command = Command()
        deadlines.add(command)
        command.answered = True
        alive.append(weakref.ref(command))
    del command
    gc.collect()
    assert sum(each() is not None for each in alive) < 5_000


async def test_commands_that_waited_cost_no_search_among_later_ones() -> None:
    deadlines = Deadlines()
    start = trio.current_time()
    for _ in range(50_000):
        deadlines.add(Command())
    began = time.perf_counter()
    for _ in range(2_000):
        deadlines.add(Command(), since=start - 1.0)
    assert time.perf_counter() - began < 1.0
