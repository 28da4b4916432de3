"""Dead cycles go although the collector was told to leave the process alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from sidecar.memory import AT_LAST, LOOK_EVERY, MUCH, QUIET, TIDY_EVERY, calm_collector, tidy


class Cycle:
    """Something that refers to itself, as an exception does by its frames."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Calm, as in the process; afterwards as it was."""
    before = gc.get_threshold()
    calm_collector()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def lived_long() -> weakref.ref[Cycle]:
    """A dead cycle that has survived collections while it was in use."""
    cycle = Cycle()
    gc.collect()
    gc.collect()
    return weakref.ref(cycle)


async def test_a_dead_cycle_goes_within_a_look(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    dead = lived_long()
    gc.collect(0)
    assert dead() is not None, "the youngest generation is all that Python itself would have looked at"
    nursery.start_soon(tidy, lambda: QUIET, lambda: 0)
    await trio.sleep(TIDY_EVERY + 1)
    assert dead() is None


async def test_beside_a_backlog_it_waits_but_not_for_ever(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    dead = lived_long()
    nursery.start_soon(tidy, lambda: QUIET + 1, lambda: 0)
    await trio.sleep(AT_LAST - 1)
    assert dead() is not None
    await trio.sleep(TIDY_EVERY + 1)
    assert dead() is None


async def test_behind_large_commands_it_does_not_wait(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    dead = lived_long()
    large = 0
    nursery.start_soon(tidy, lambda: QUIET + 1, lambda: large)
    await trio.sleep(LOOK_EVERY + 0.5)
    assert dead() is not None
    large = MUCH
    await trio.sleep(LOOK_EVERY)
    assert dead() is None
