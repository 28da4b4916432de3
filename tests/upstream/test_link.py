"""The link is kept up for ever: backoff, silence, refusals, probes; in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import trio
import trio.testing

from sidecar.upstream.link import BACKOFF_FIRST, BACKOFF_MAX, PROBE_EVERY, Link
from sidecar.upstream.pipe import REPLY_TIMEOUT
from tests.upstream.far_end import INFO_REPLY, FarEnd, ScriptedDialer


class Watched:
    """A link, and each change that it told of."""

    def __init__(self) -> None:
        self.dialer = ScriptedDialer()
        self.changes: list[str | None] = []
        self.link = Link(self.dialer, self._changed)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self.changes.append(self.link.down_reason)
        assert (self.link.pipe is None) == (self.link.down_reason is not None)

    async def up(self) -> FarEnd:
        """Let the next dial succeed, and return when the link is up."""
        far = self.dialer.accept()
        assert await far.line() == b"INFO"
        await far.say(INFO_REPLY)
        await trio.testing.wait_all_tasks_blocked()
        assert self.link.pipe is not None
        return far


@pytest.fixture
async def watched(nursery: trio.Nursery) -> AsyncIterator[Watched]:
    watched = Watched()
    nursery.start_soon(watched.link.run)
    yield watched
    nursery.cancel_scope.cancel()


async def test_it_is_up_when_upstream_has_answered_for_the_first_time(
    watched: Watched, autojump_clock: trio.abc.Clock
) -> None:
    far = watched.dialer.accept()
    assert await far.line() == b"INFO"
    assert watched.link.pipe is None
    await trio.sleep(0.05)
    await far.say(INFO_REPLY)
    await trio.testing.wait_all_tasks_blocked()
    assert watched.link.pipe is not None
    assert watched.link.version == "1.10.0"
    assert watched.link.round_trip == pytest.approx(0.05)
    assert watched.changes == [None]


async def test_reconnects_back_off_with_jitter_up_to_a_bound(watched: Watched, autojump_clock: trio.abc.Clock) -> None:
    await trio.sleep(300)
    times = watched.dialer.times
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert BACKOFF_FIRST * 0.75 <= gaps[0] <= BACKOFF_FIRST * 1.25
    assert all(gap <= BACKOFF_MAX * 1.25 for gap in gaps)
    assert all(later > earlier * 1.1 for earlier, later in pairwise(gaps[:4]))
    assert max(gaps) > BACKOFF_MAX * 0.75
    assert len(set(gaps[8:])) > 3


async def test_dials_into_a_black_hole_back_off_too(watched: Watched, autojump_clock: trio.abc.Clock) -> None:
    """A dial that is given up after 5 s is no connection that stood for 5 s."""
    watched.dialer.takes = 5.0
    await trio.sleep(300)
    times = watched.dialer.times
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) > 5.0 + BACKOFF_MAX * 0.75


async def test_a_connection_that_stood_is_followed_by_a_quick_reconnect(
    watched: Watched, autojump_clock: trio.abc.Clock
) -> None:
    await trio.sleep(60)
    far = watched.dialer.accept()
    assert await far.line() == b"INFO"
    await far.say(INFO_REPLY)
    await trio.sleep(6.0)
    before = trio.current_time()
    await far.end()
    await watched.up()
    assert trio.current_time() - before <= BACKOFF_FIRST * 1.25
    assert watched.link.connects == 2


async def test_silence_while_a_reply_is_owed_ends_it(watched: Watched, autojump_clock: trio.abc.Clock) -> None:
    far = await watched.up()
    outcomes: list[bytes | None] = []
    assert watched.link.pipe is not None
    sent = trio.current_time()
    watched.link.pipe.send(b"PUSH {}\r\n", outcomes.append)
    await trio.sleep(REPLY_TIMEOUT - 1.0)
    assert outcomes == []
    assert await far.line() == b"PUSH {}"
    assert await far.line() == b""
    assert REPLY_TIMEOUT < trio.current_time() - sent < REPLY_TIMEOUT + 2.5
    await trio.testing.wait_all_tasks_blocked()
    assert outcomes == [None]
    assert watched.changes[1] == f"no reply for {REPLY_TIMEOUT:.0f} s"


async def test_a_server_that_takes_its_time_for_each_batch_is_not_given_up(
    watched: Watched, autojump_clock: trio.abc.Clock
) -> None:
    far = await watched.up()
    outcomes: list[bytes | None] = []
    assert watched.link.pipe is not None
    for _ in range(20):
        watched.link.pipe.send(b"PUSH {}\r\n", outcomes.append)
    for _ in range(20):
        await trio.sleep(5.0)
        await far.say(b"+OK\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert outcomes == [b"+OK\r\n"] * 20


async def test_a_silent_link_is_probed_and_a_dead_one_found(watched: Watched, autojump_clock: trio.abc.Clock) -> None:
    far = await watched.up()
    start = trio.current_time()
    assert await far.line() == b"INFO"
    assert PROBE_EVERY < trio.current_time() - start < PROBE_EVERY + 2.5
    await trio.sleep(0.2)
    await far.say(INFO_REPLY)
    await trio.testing.wait_all_tasks_blocked()
    assert watched.link.round_trip == pytest.approx(0.2)
    assert await far.line() == b"INFO"
    assert await far.line() == b""
    await trio.testing.wait_all_tasks_blocked()
    assert watched.link.down_reason == f"no reply for {REPLY_TIMEOUT:.0f} s"


@pytest.mark.parametrize("early", [True, False])
async def test_a_server_with_too_many_connections_is_said_to_be_that(
    early: bool, watched: Watched, autojump_clock: trio.abc.Clock
) -> None:
    words = b"-ERR too many connections: 2001\r\n"
    far = watched.dialer.accept(*([words] if early else []))
    if not early:
        assert await far.line() == b"INFO"
        await far.say(words)
    await trio.sleep(0.1)
    assert watched.changes == ["ERR too many connections: 2001"]
    await watched.up()
    assert watched.changes[-1] is None


async def test_words_that_nobody_asked_for_end_it(watched: Watched, autojump_clock: trio.abc.Clock) -> None:
    far = await watched.up()
    await far.say(b"-ERR shutdown in progress\r\n")
    await far.end()
    await trio.testing.wait_all_tasks_blocked()
    assert watched.changes == [None, "ERR shutdown in progress"]


async def test_nothing_is_sent_on_a_link_that_was_dropped(watched: Watched, autojump_clock: trio.abc.Clock) -> None:
    far = await watched.up()
    watched.link.drop("not to be used")
    assert watched.link.pipe is None
    with trio.fail_after(5):
        assert await far.line() == b""
    await trio.testing.wait_all_tasks_blocked()
    assert watched.changes == [None, "not to be used"]
