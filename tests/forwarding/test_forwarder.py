"""What is sent when, and what becomes of it: every reply, every loss, every deadline."""

from __future__ import annotations

import json

import pytest
import trio

from sidecar.config import Ack
from tests.forwarding.scripted import ALL, world

OK = b"+OK\r\n"
SHUTDOWN = b"-ERR shutdown in progress\r\n"


def refused(**texts: str) -> bytes:
    """The reply to a PUSHB of which some jobs were refused."""
    body = json.dumps(texts).encode()
    return b"$%d\r\n%s\r\n" % (len(body), body)


# When a batch leaves


async def test_a_batch_that_is_full_by_its_bytes_does_not_wait_for_the_linger(autojump_clock: trio.abc.Clock) -> None:
    async with world(jobs=100, size=1_000, linger=60.0) as it:
        it.link.up()
        started = trio.current_time()
        it.push("first", size=600)
        await trio.testing.wait_all_tasks_blocked()
        it.push("second", size=600)
        await trio.testing.wait_all_tasks_blocked()
        assert it.sent == [["first"]]
        assert trio.current_time() == started
        await trio.sleep(60.01)
        assert it.sent == [["first"], ["second"]]


async def test_a_batch_leaves_when_its_first_job_has_waited_for_the_linger(autojump_clock: trio.abc.Clock) -> None:
    async with world(linger=0.05) as it:
        it.link.up()
        it.push("first")
        await trio.sleep(0.03)
        it.push("second")
        await trio.sleep(0.019)
        assert it.sent == []
        await trio.sleep(0.002)
        assert it.sent == [["first", "second"]]


async def test_depth_bounds_the_batches_in_flight(autojump_clock: trio.abc.Clock) -> None:
    async with world(depth=2) as it:
        it.link.up()
        for number in range(4):
            it.push(*[f"job-{number}{place}" for place in range(3)])
        assert len(it.sent) == 2
        it.answer(ALL)
        assert len(it.sent) == 2
        it.answer(ALL)
        it.answer(ALL)
        it.answer(ALL)
        assert (it.sent, it.counts.delivered, it.forwarder.unsettled) == ([], 12, 0)


@pytest.mark.parametrize("mode", [Ack.MEMORY, Ack.UPSTREAM])
async def test_depth_one_is_strictly_one_command_at_a_time(mode: Ack, autojump_clock: trio.abc.Clock) -> None:
    """Also towards a server that is too old for PUSHB, and with jobs that travel by themselves."""
    async with world(depth=1, mode=mode) as it:
        it.link.up()
        it.push("plain-1", "plain-2", "plain-3")
        it.push("unique-1", "unique-2", confirmed=True)
        assert it.sent == [["plain-1", "plain-2", "plain-3"]]
        it.answer(b"-ERR unknown command PUSHB\r\n")
        seen: list[list[str]] = []
        while it.sent:
            assert len(it.sent) == 1
            seen += it.sent
            it.answer(OK)
        assert seen == [["plain-1"], ["plain-2"], ["plain-3"], ["unique-1"], ["unique-2"]]
        assert it.forwarder.unsettled == 0


async def test_bytes_in_flight_are_bounded_however_deep_the_pipeline(autojump_clock: trio.abc.Clock) -> None:
    async with world(depth=64, room=100_000, memory_max=1 << 30) as it:
        it.link.up()
        for number in range(20):
            it.push(f"large-{number}", size=30_000, linger=False)
        assert sum(len(command) for command, _ in it.owed) < 200_000
        while it.sent:
            it.answer(ALL)
        assert it.counts.delivered == 20


async def test_a_server_without_pushb_gets_pipelined_pushes(autojump_clock: trio.abc.Clock) -> None:
    async with world(depth=4) as it:
        it.link.up()
        it.push("j1", "j2", "j3")
        it.push("j4", "j5", "j6")
        it.answer(b"-ERR unknown command PUSHB\r\n")
        it.answer(b"-ERR unknown command PUSHB\r\n")
        assert sorted(name for command in it.sent for name in command) == ["j1", "j2", "j3", "j4", "j5", "j6"]
        assert all(len(command) == 1 for command in it.sent)
        for _ in range(6):
            it.answer(OK)
        assert it.counts.delivered == 6


# States of the link


async def test_a_link_that_refuses_to_serve_gets_nothing_more_and_leaves_nothing_in_doubt(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with world() as it:
        it.link.up()
        it.push("j1", "j2", "j3")
        it.answer(SHUTDOWN)
        assert it.link.dropped == "shutdown in progress"
        assert it.sent == []
        it.link.down("shutdown in progress")
        assert (it.counts.in_doubt, it.counts.rejected) == (0, 0)
        it.link.up()
        assert it.sent == [["j1", "j2", "j3"]]


async def test_a_server_that_shuts_down_again_and_again_convicts_no_job(autojump_clock: trio.abc.Clock) -> None:
    async with world() as it:
        it.push("j1", "j2", "j3")
        for _ in range(30):
            it.link.up()
            while it.sent:
                it.answer(SHUTDOWN)
            it.link.down("shutdown in progress")
        it.link.up()
        assert it.sent == [["j1", "j2", "j3"]]
        it.answer(ALL)
        assert (it.counts.delivered, it.counts.dead, it.counts.in_doubt) == (3, 0, 0)


@pytest.mark.parametrize(
    "reply", [SHUTDOWN, b"-ERR unknown command PUSHB\r\n", b"-ERR nobody has seen this\r\n"], ids=["link", "old", "odd"]
)
async def test_a_job_whose_producer_was_told_in_doubt_is_not_sent_again(
    reply: bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with world(mode=Ack.UPSTREAM, linger=0.0) as it:
        it.link.up()
        it.push("told-in-doubt")
        it.push("told-as-well")
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(3.9)
        it.push("in-time")
        await trio.sleep(0.2)
        assert {name: text.partition(":")[0] for name, text in it.told.items()} == dict.fromkeys(
            ["told-in-doubt", "told-as-well"], "in doubt"
        )
        it.answer(reply)
        if it.link.dropped is not None:
            it.link.down("shutdown in progress")
            it.link.up()
        await trio.testing.wait_all_tasks_blocked()
        assert it.sent == [["in-time"]]
        it.answer(OK if reply != SHUTDOWN and it.sent_verbs == ["PUSH"] else ALL)
        assert it.told["in-time"] == "OK"
        assert it.forwarder.unsettled == 0


# Deadlines of confirmed jobs


async def test_a_job_that_can_not_be_sent_in_time_is_not_sent_later(autojump_clock: trio.abc.Clock) -> None:
    async with world(mode=Ack.UPSTREAM) as it:
        started = trio.current_time()
        it.push("too-late")
        await trio.sleep(3.999)
        assert it.told == {}
        await trio.sleep(0.002)
        assert it.told == {"too-late": "not sent: Faktory can't be reached (not connected yet)"}
        assert trio.current_time() - started == pytest.approx(4.001)
        it.link.up()
        await trio.sleep(1.0)
        assert it.sent == []
        assert it.forwarder.unsettled == 0


async def test_a_confirmed_job_is_resent_after_a_lost_link_only_while_its_producer_waits(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with world(mode=Ack.UPSTREAM, linger=0.0) as it:
        it.link.up()
        it.push("patient", linger=False)
        await trio.sleep(1.0)
        it.link.down()
        assert it.told == {}
        it.link.up()
        assert it.sent == [["patient"]]
        await trio.sleep(3.1)
        assert it.told["patient"] == "in doubt: Faktory did not answer in time; the job may have been enqueued"
        it.link.down()
        it.link.up()
        assert it.sent == []
        assert it.forwarder.unsettled == 0


async def test_a_job_that_was_lost_with_the_link_and_waits_for_another_is_in_doubt(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with world(mode=Ack.UPSTREAM, linger=0.0) as it:
        it.link.up()
        it.push("was-sent-once", linger=False)
        it.link.down()
        await trio.sleep(4.1)
        assert it.told["was-sent-once"].startswith("in doubt: ")


@pytest.mark.parametrize("mode", [Ack.MEMORY, Ack.UPSTREAM])
async def test_a_unique_job_is_never_sent_twice_and_its_reply_is_verbatim(
    mode: Ack, autojump_clock: trio.abc.Clock
) -> None:
    async with world(mode=mode) as it:
        it.link.up()
        it.push("unique-1", confirmed=True)
        it.push("unique-2", confirmed=True)
        await trio.testing.wait_all_tasks_blocked()
        assert it.sent == [["unique-1"], ["unique-2"]]
        it.answer(b"-NOTUNIQUE Job not unique\r\n")
        assert it.told == {"unique-1": "NOTUNIQUE Job not unique"}
        it.link.down()
        assert it.told["unique-2"].startswith("in doubt: the connection to Faktory was lost")
        it.link.up()
        await trio.sleep(5.0)
        assert it.sent == []
        assert (it.forwarder.unsettled, it.counts.resent) == (0, 0)


async def test_a_unique_job_waits_for_the_jobs_before_it(autojump_clock: trio.abc.Clock) -> None:
    async with world(linger=60.0) as it:
        it.link.up()
        origin = it.push("earlier")
        it.push("unique-1", origin=origin, confirmed=True)
        assert it.sent == [["earlier"]]
        it.answer(ALL)
        assert it.sent == [["unique-1"]]
        it.answer(OK)
        assert it.told == {"earlier": "OK", "unique-1": "OK"}


async def test_a_unique_job_behind_jobs_that_do_not_get_through_is_not_sent(autojump_clock: trio.abc.Clock) -> None:
    async with world() as it:
        origin = it.push("earlier")
        it.push("unique-1", origin=origin, confirmed=True)
        await trio.sleep(4.1)
        assert it.told["unique-1"].startswith("not sent: Faktory can't be reached")
        it.link.up()
        await trio.sleep(0.1)
        it.answer(ALL)
        assert it.sent == []
        assert it.forwarder.unsettled == 0


# Refusals


async def test_refusals_in_a_map_are_told_one_by_one(autojump_clock: trio.abc.Clock) -> None:
    async with world(mode=Ack.UPSTREAM) as it:
        it.link.up()
        it.push("j1", "j2", "j3", linger=False)
        it.answer(refused(j2="jobs must have a jobtype parameter", j3="NOTUNIQUE Job not unique"))
        assert it.told == {"j1": "OK", "j2": "jobs must have a jobtype parameter", "j3": "NOTUNIQUE Job not unique"}


async def test_a_transient_refusal_makes_the_whole_link_pause_and_goes_round(autojump_clock: trio.abc.Clock) -> None:
    oom = "OOM command not allowed when used memory > 'maxmemory'."
    async with world() as it:
        it.link.up()
        it.push("j1", "j2", "j3")
        it.answer(refused(j1=oom, j2=oom, j3=oom))
        it.push("k1", "k2", "k3")
        await trio.sleep(0.1)
        assert it.sent == []
        await trio.sleep(0.2)
        assert it.sent == [["j1", "j2", "j3"]]  # one command is enough to learn how things are
        it.answer(b"-ERR " + oom.encode() + b"\r\n")
        await trio.sleep(1.0)
        it.answer(ALL)
        it.answer(ALL)
        assert (it.counts.delivered, it.counts.dead, it.forwarder.unsettled) == (6, 0, 0)


ODD = "WRONGTYPE Operation against a key holding the wrong kind of value"
"""Redis' words for a queue whose key is something else: nobody has listed them, and they are about one queue's jobs."""


async def test_a_job_refused_alone_while_others_are_taken_waits_apart(autojump_clock: trio.abc.Clock) -> None:
    async with world() as it:
        it.link.up()
        passed: list[str] = []
        origin = it.push("odd-job", "good-job", linger=False)
        origin.close_epoch().wait(lambda: passed.append("barrier"))
        it.forwarder.when_all_settled(lambda: passed.append("flush"))
        it.answer(refused(**{"odd-job": ODD}))
        assert (passed, it.forwarder.unsettled, it.forwarder.apart.jobs) == (["barrier", "flush"], 1, 1)
        it.push("later", linger=False)
        assert it.sent == [["later"]], "the link makes no pause for it"
        it.answer(ALL)
        started, tries = trio.current_time(), 1
        while it.forwarder.unsettled:
            await trio.sleep(5.0)
            for command in it.sent:
                tries += "odd-job" in command
                it.answer(refused(**{"odd-job": ODD}) if "odd-job" in command else ALL)
            it.push(f"after-{trio.current_time()}", linger=False)
            it.answer(ALL)
        assert (tries, it.counts.dead, it.forwarder.apart.jobs) == (6, 1, 0)
        assert trio.current_time() - started > 4 * 60.0
        assert it.forwarder.unstored_memory == 0


@pytest.mark.parametrize(
    "text",
    [
        "dial unix /tmp/redis.sock: connect: resource temporarily unavailable",
        "write: broken pipe",
        "ERR max number of clients reached",
        "DENIED push denied",
        "internal error",
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "map"])
async def test_a_server_that_refuses_everything_kills_no_job(
    text: str, whole: bool, autojump_clock: trio.abc.Clock
) -> None:
    async with world() as it:
        it.link.up()
        it.push("j1", "j2", "j3", linger=False)
        end = trio.current_time() + 60.0
        while trio.current_time() < end:
            while it.sent:
                single = it.sent_verbs[0] == "PUSH"
                it.answer(
                    b"-ERR %b\r\n" % text.encode() if whole or single else refused(**dict.fromkeys(it.sent[0], text))
                )
            await trio.sleep(0.5)
        assert (it.counts.dead, it.forwarder.unsettled) == (0, 3)


async def test_nothing_counts_against_a_job_while_no_other_is_taken(autojump_clock: trio.abc.Clock) -> None:
    async with world() as it:
        it.link.up()
        it.push("j1", "j2", "j3", linger=False)
        end = trio.current_time() + 900.0
        while trio.current_time() < end:
            while it.sent:
                it.answer(refused(**dict.fromkeys(it.sent[0], "words that nobody has listed")))
            await trio.sleep(1.0)
        assert (it.counts.dead, it.forwarder.unsettled) == (0, 3)
        while it.forwarder.unsettled:
            while it.sent:
                it.answer(ALL)
            await trio.sleep(1.0)
        assert it.counts.delivered == 3


async def test_a_lone_job_holds_nobody_up_that_waits_for_it(autojump_clock: trio.abc.Clock) -> None:
    async with world() as it:
        it.link.up()
        passed: list[float] = []
        started = trio.current_time()
        origin = it.push("odd-job", linger=False)
        origin.close_epoch().wait(lambda: passed.append(trio.current_time() - started))
        while not passed:
            while it.sent:
                it.answer(b"-ERR " + ODD.encode() + b"\r\n")
            await trio.sleep(0.05)
        assert passed[0] < 2.0
        assert it.forwarder.apart.jobs == 1


async def test_a_passing_text_that_keeps_hitting_one_job_sets_it_apart_for_good(autojump_clock: trio.abc.Clock) -> None:
    async with world() as it:
        it.link.up()
        denied = "NOPERM this user has no permissions to access one of the keys used as arguments"
        it.push("denied", "good-job", linger=False)
        end = trio.current_time() + 900.0
        while trio.current_time() < end:
            for command in it.sent:
                it.answer(refused(denied=denied) if "denied" in command else ALL)
            it.push(f"after-{trio.current_time()}", linger=False)
            await trio.sleep(1.0)
        assert (it.counts.dead, it.forwarder.apart.jobs) == (0, 1)


async def test_at_the_end_what_waits_apart_is_tried_once_more_and_not_waited_for(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with world() as it:
        it.link.up()
        it.push("odd-job", "good-job", linger=False)
        it.answer(refused(**{"odd-job": ODD}))
        assert (it.intake.owed, it.intake.waiting) == (1, 0)
        it.forwarder.hurry()
        assert it.intake.waiting == 1
        await trio.sleep(1.5)
        assert it.sent == [["odd-job"]]
        it.answer(refused(**{"odd-job": ODD}))
        assert (it.intake.owed, it.intake.waiting) == (1, 0)


@pytest.mark.parametrize(
    "reply", [b"+OK\r\n", b"$-1\r\n", b":1\r\n", b"$2\r\n[]\r\n", b'$7\r\n{"a":1}\r\n', b"$3\r\n{\xff}\r\n"]
)
async def test_a_reply_that_is_none_ends_the_link_and_settles_nothing(
    reply: bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with world() as it:
        it.link.up()
        it.push("j1", "j2", "j3")
        it.answer(reply)
        assert it.link.dropped is not None
        assert it.counts.delivered == 0
        it.link.down(it.link.dropped)
        it.link.up()
        it.answer(ALL)
        assert it.counts.delivered == 3


# Memory


async def test_memory_is_bounded_and_frees_itself(autojump_clock: trio.abc.Clock) -> None:
    async with world(memory_max=50_000, size=10_000) as it:
        for number in range(100):
            if it.intake.refusal_reason() is not None:
                break
            it.push(f"large-{number}", size=5_000)
        assert number < 12
        refusal = await it.intake.room()
        assert refusal is not None
        assert refusal.message.startswith("not sent: memory full")
        it.link.up()
        while it.sent:
            it.answer(ALL)
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.06)
        assert it.intake.refusal_reason() is None
        assert (it.forwarder.unstored_memory, it.batcher.memory, it.forwarder.unsettled) == (0, 0, 0)


# Drain


async def test_after_hurry_nothing_lingers(autojump_clock: trio.abc.Clock) -> None:
    async with world(linger=60.0) as it:
        it.link.up()
        it.push("j1")
        it.forwarder.hurry()
        await trio.testing.wait_all_tasks_blocked()
        it.push("j2")
        await trio.testing.wait_all_tasks_blocked()
        assert it.sent == [["j1"], ["j2"]]


# FLUSH


async def test_flush_waits_for_all_and_holds_back_what_comes_meanwhile(autojump_clock: trio.abc.Clock) -> None:
    async with world(linger=60.0) as it:
        it.link.up()
        it.push("before")
        passed: list[str] = []
        it.forwarder.when_all_settled(lambda: passed.append("FLUSH"))
        it.push("after-1", "after-2", "after-3")
        assert (it.sent, passed) == ([["before"]], [])
        it.answer(ALL)
        assert passed == ["FLUSH"]
        assert it.sent == [["after-1", "after-2", "after-3"]]
