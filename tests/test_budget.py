"""The budget of what clients send, by itself."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sidecar.budget import (
    GIVE_WAY,
    LOOK_EVERY,
    MAX_WAITING,
    MEDIUM,
    MOST,
    OTHERS,
    POOL,
    SMALL,
    TURN,
    WAIT,
    Budget,
    NoRoom,
    Share,
)
from sidecar.protocol.lines import MAX_LINE

PIECE, MIB = SMALL, 1 << 20


class Sender:
    """A client in the middle of one large command."""

    def __init__(self, budget: Budget, size: int) -> None:
        self.share = budget.share()
        self.left = size
        self.pieces = trio.Semaphore(0)  # that have come
        self.refused: str | None = None
        self.whole = trio.Event()

    async def run(self) -> None:
        """Receive it as it comes; it stays unanswered."""

        async def receive() -> int:
            await self.pieces.acquire()
            return min(PIECE, self.left)

        try:
            while self.left:
                got = await self.share.more(receive)
                self.left -= got
                self.share.grow(got)
            self.whole.set()
        except NoRoom as error:
            self.refused = str(error)
            self.share.close()

    def send(self) -> None:
        """All of it is there."""
        for _ in range(-(-self.left // PIECE)):
            self.pieces.release()


async def started(nursery: trio.Nursery, budget: Budget, sizes: list[int], *, send: bool = True) -> list[Sender]:
    senders = [Sender(budget, size) for size in sizes]
    for sender in senders:
        nursery.start_soon(sender.run)
        await wait_all_tasks_blocked()
        if send:
            sender.send()
            await wait_all_tasks_blocked()
    return senders


async def in_the_middle(nursery: trio.Nursery, budget: Budget) -> Sender:
    """The one whose turn it is to be large, and of which no more has come."""
    (sender,) = await started(nursery, budget, [MAX_LINE], send=False)
    for _ in range(MEDIUM // PIECE + 1):
        sender.pieces.release()
    await wait_all_tasks_blocked()
    return sender


async def passed(clock: MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def test_the_largest_are_received_one_at_a_time(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        first, second, third = await started(nursery, budget, [MAX_LINE] * 3)
        assert first.whole.is_set()
        assert not second.whole.is_set()
        assert budget.used <= MOST + 2 * SMALL
        first.share.shrink_to(0)  # answered
        await wait_all_tasks_blocked()
        assert second.whole.is_set()
        assert not third.whole.is_set()
        assert budget.used <= MOST
        second.share.close()  # or gone
        await wait_all_tasks_blocked()
        assert third.whole.is_set()
        third.share.close()
    assert budget.used == 0
    assert not budget.begun


async def test_many_of_a_middle_size_share_the_pool(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        senders = await started(nursery, budget, [POOL // 10] * 10)
        assert all(sender.whole.is_set() for sender in senders)


async def test_small_ones_are_never_held_up(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        large = await started(nursery, budget, [MAX_LINE] * 2)
        before = trio.current_time()
        (small,) = await started(nursery, budget, [SMALL])
        assert small.whole.is_set()
        assert trio.current_time() == before
        for sender in large:
            sender.share.close()
        nursery.cancel_scope.cancel()


async def test_who_pauses_while_others_wait_is_refused(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        slow = await in_the_middle(nursery, budget)
        await passed(mock_clock, 10 * WAIT)
        assert slow.refused is None, "nobody waits"
        (other,) = await started(nursery, budget, [MAX_LINE])
        assert other.whole.is_set()
        assert slow.refused == "memory full: it takes too long to arrive, and others wait"


async def test_who_takes_too_long_while_others_wait_is_refused(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        slow = await in_the_middle(nursery, budget)
        (other,) = await started(nursery, budget, [MAX_LINE])
        for _ in range(2):
            assert slow.refused is None
            for _ in range(10):
                slow.pieces.release()
                await passed(mock_clock, TURN / 20)
        await passed(mock_clock, TURN / 20)
        assert slow.refused == "memory full: it takes too long to arrive, and others wait"
        assert other.whole.is_set()


async def test_others_have_the_pool_beside_the_largest(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        await started(nursery, budget, [MAX_LINE])
        others = await started(nursery, budget, [MIB] * 5)
        assert all(sender.whole.is_set() for sender in others)


async def test_those_who_wait_to_be_large_give_way_the_youngest_first(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        await started(nursery, budget, [MAX_LINE])
        waiting = await started(nursery, budget, [MAX_LINE] * 3)
        medium = await started(nursery, budget, [MIB] * 2)
        assert not medium[1].whole.is_set()
        assert [sender.refused for sender in waiting] == [None] * 3
        await passed(mock_clock, GIVE_WAY + LOOK_EVERY)
        assert all(sender.whole.is_set() for sender in medium)
        assert [sender.refused for sender in waiting] == [None, None, OTHERS]
        nursery.cancel_scope.cancel()


async def test_who_has_waited_for_too_long_is_refused(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        whole, waiting = await started(nursery, budget, [MAX_LINE] * 2)
        await passed(mock_clock, WAIT / 2)
        assert waiting.refused is None
        await passed(mock_clock, WAIT / 2)
        assert whole.refused is None, "it is whole, and will be answered"
        assert waiting.refused == "memory full: other large commands are being received"


async def test_so_many_small_ones_that_they_are_large_end_with_the_oldest(mock_clock: MockClock) -> None:
    budget = Budget()
    count = MOST // SMALL + 10
    async with trio.open_nursery() as nursery:
        senders = await started(nursery, budget, [2 * SMALL] * count, send=False)
        for sender in senders:
            sender.pieces.release()
            await wait_all_tasks_blocked()
        late = await started(nursery, budget, [2 * SMALL] * 20, send=False)
        for sender in late:
            sender.pieces.release()
            await wait_all_tasks_blocked()
        assert budget.used <= MOST + 20 * SMALL
        assert senders[0].refused == "memory full: too many unfinished commands"
        assert late[-1].refused is None
        nursery.cancel_scope.cancel()


async def test_no_more_than_a_few_wait(mock_clock: MockClock) -> None:
    budget = Budget()
    async with trio.open_nursery() as nursery:
        (first,) = await started(nursery, budget, [MAX_LINE])
        others = await started(nursery, budget, [MAX_LINE] * (MAX_WAITING + 1))
        assert [sender.refused is not None for sender in others] == [False] * MAX_WAITING + [True]
        first.share.close()
        nursery.cancel_scope.cancel()


async def test_who_waited_in_one_command_has_all_the_time_in_the_next(mock_clock: MockClock) -> None:
    budget = Budget()
    share = budget.share()
    share.grow(2 * SMALL)
    assert share.waits_until() == WAIT
    share.shrink_to(0)
    await share.more(trio.lowlevel.checkpoint)  # for something that is no command
    share.shrink_to(share.size)
    assert not budget.begun
    mock_clock.jump(10 * WAIT)
    share.grow(2 * SMALL)
    assert share.waits_until() == 11 * WAIT


async def test_what_was_given_back_is_not_taken_again() -> None:
    """A command that is handed over when its client has left, in the middle of the next one."""
    budget = Budget()
    share = budget.share()
    share.grow(2 * MIB)
    share.close()
    share.shrink_to(SMALL)
    assert (share.size, budget.used, list(budget.begun)) == (0, 0, [])


async def test_a_client_that_leaves_gives_all_back() -> None:
    budget = Budget()
    share: Share = budget.share()
    share.grow(5 * SMALL)
    assert (budget.used, list(budget.begun)) == (5 * SMALL, [share])
    share.close()
    assert (budget.used, list(budget.begun)) == (0, [])
    with trio.move_on_after(0):
        await share.more(trio.sleep_forever)
    share.close()
    assert not budget.begun
