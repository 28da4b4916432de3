"""The judge as a table: a reply and what is known of the jobs, and the fate of each."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

from sidecar.forwarder.batching import Batch
from sidecar.forwarder.judge import (
    COUNT_EVERY,
    LONE_TRIES,
    SETBACKS,
    UNKNOWN_TRIES,
    Fates,
    Pace,
    Unreadable,
    after_loss,
    judge,
)
from sidecar.jobs import Entry, Epoch, Place, Trouble
from sidecar.protocol.replies import OK

DIAL = "dial unix /tmp/redis.sock: connect: resource temporarily unavailable"
LATE = "context deadline exceeded"
ODD = "WRONGTYPE Operation against a key holding the wrong kind of value"
INVALID = "jobs must have a jobtype parameter"
PANIC = "internal error"


def batch(*jids: str, single: bool = False, trouble: Trouble | None = None, told: bool = False) -> Batch:
    entries = [Entry(i, b"{}", jid, Epoch(1), trouble=trouble) for i, jid in enumerate(jids)]
    for entry in entries:
        entry.place = Place.SENT
        if told:
            entry.verdict = lambda reply: None
    return Batch(entries, "full", single=single)


def a_map(**texts: str) -> bytes:
    body = json.dumps(texts).encode()
    return b"$%d\r\n%b\r\n" % (len(body), body)


def whole(text: str) -> bytes:
    return b"-ERR " + text.encode() + b"\r\n"


def table(fates: Fates) -> dict[str, str]:
    """jid -> the list it is in."""
    lists: dict[str, Sequence[Entry]] = {
        "accepted": fates.accepted,
        "told": [entry for entry, _ in fates.told],
        "dead": [entry for entry, _ in fates.dead],
        "again": fates.again,
        "behind": fates.behind,
        "split": fates.split,
        "apart": [entry for entry, _ in fates.apart],
        "over": fates.over,
    }
    found = {entry.jid: name for name, entries in lists.items() for entry in entries}
    assert len(found) == sum(map(len, lists.values())), "each job has one fate"
    return found


@pytest.mark.parametrize(
    ("reply", "delivered", "fates", "pace"),
    [
        (b"$2\r\n{}\r\n", 0, {"a": "accepted", "b": "accepted"}, Pace.ON),
        (a_map(a=INVALID), 0, {"a": "dead", "b": "accepted"}, Pace.ON),
        (a_map(a=DIAL), 0, {"a": "again", "b": "accepted"}, Pace.PAUSE),
        (a_map(a=DIAL, b=DIAL), 9, {"a": "again", "b": "again"}, Pace.PAUSE),
        (a_map(a=LATE, b=LATE), 0, {"a": "again", "b": "again"}, Pace.LESS),
        (a_map(a=ODD), 0, {"a": "apart", "b": "accepted"}, Pace.ON),
        (a_map(a=ODD, b=ODD), 9, {"a": "apart", "b": "apart"}, Pace.ON),
        (a_map(a=ODD, b=ODD), 0, {"a": "again", "b": "again"}, Pace.PAUSE),
        (whole(DIAL), 9, {"a": "again", "b": "again"}, Pace.PAUSE),
        (whole(INVALID), 0, {"a": "split", "b": "split"}, Pace.ON),
        (whole(PANIC), 9, {"a": "split", "b": "split"}, Pace.ON),
        (whole(PANIC), 0, {"a": "again", "b": "again"}, Pace.PAUSE),
        (whole("Shutdown in progress"), 0, {"a": "again", "b": "again"}, Pace.ON),
        (whole("Unknown command PUSHB"), 0, {"a": "again", "b": "again"}, Pace.ON),
    ],
)
def test_acknowledged_jobs(reply: bytes, delivered: int, fates: dict[str, str], pace: Pace) -> None:
    found = judge(batch("a", "b"), reply, delivered=delivered, now=0.0)
    assert (table(found), found.pace) == (fates, pace)


@pytest.mark.parametrize("text", [INVALID, DIAL, LATE, ODD, PANIC])
def test_who_waits_is_told_upstreams_words(text: str) -> None:
    found = judge(batch("a", told=True, single=True), whole(text), delivered=0, now=0.0)
    assert [(entry.jid, reply) for entry, reply in found.told] == [("a", whole(text))]
    found = judge(batch("a", "b", told=True), a_map(a=text), delivered=0, now=0.0)
    assert table(found) == {"a": "told", "b": "accepted"}


def test_a_state_of_the_link_drops_it() -> None:
    assert judge(batch("a"), whole("Shutdown in progress"), delivered=0, now=0.0).drop == "Shutdown in progress"
    once = batch("a", single=True, told=True)
    once.entries[0].once = True
    found = judge(once, b"-SHUTDOWN Shutdown in progress\r\n", delivered=0, now=0.0)
    assert (table(found), found.drop) == ({"a": "told"}, "SHUTDOWN Shutdown in progress")


@pytest.mark.parametrize(("reply", "doubtful"), [(whole(LATE), 2), (whole(PANIC), 2), (whole(DIAL), 0)])
def test_what_may_have_been_applied_is_in_doubt(reply: bytes, doubtful: int) -> None:
    assert judge(batch("a", "b"), reply, delivered=0, now=0.0).in_doubt == doubtful


def test_a_lone_job_is_set_apart_when_only_it_can_be_meant() -> None:
    trouble, tries = Trouble(), 0
    while True:
        tries += 1
        found = judge(batch("a", single=True, trouble=trouble), whole(ODD), delivered=0, now=0.0)
        trouble = found.troubles[0][1]
        if trouble.apart:
            break
    assert tries == LONE_TRIES


def test_passing_texts_set_apart_and_never_count() -> None:
    trouble = Trouble()
    for _ in range(SETBACKS):
        found = judge(batch("a", "b", trouble=trouble), a_map(a=DIAL), delivered=0, now=0.0)
        trouble = found.troubles[0][1]
    assert table(found)["a"] == "apart"
    for minute in range(1, 100):
        found = judge(batch("a", trouble=trouble), a_map(a=DIAL), delivered=minute, now=minute * COUNT_EVERY)
        assert (table(found), found.troubles, found.pace) == ({"a": "apart"}, [], Pace.ON)


@pytest.mark.parametrize(
    ("seconds", "taken", "fate"),
    [(COUNT_EVERY, 1, "dead"), (COUNT_EVERY - 1, 1, "apart"), (COUNT_EVERY, 0, "apart")],
    ids=["counts", "too soon", "nobody else was taken"],
)
def test_a_try_counts_only_minutes_apart_and_while_others_are_taken(seconds: float, taken: int, fate: str) -> None:
    trouble = Trouble(apart=True, tries=UNKNOWN_TRIES - 1, counted_at=100.0, delivered=50)
    found = judge(batch("a", trouble=trouble), a_map(a=ODD), delivered=50 + taken, now=100.0 + seconds)
    assert table(found) == {"a": fate}


def test_a_server_without_pushb_is_found_out_by_trial() -> None:
    found = judge(batch("a"), whole("what do you mean"), delivered=0, now=0.0)
    assert [entry.jid for entry in found.as_push] == ["a"]
    trouble = found.troubles[0][1]
    assert judge(batch("a", single=True, trouble=trouble), OK, delivered=0, now=0.0).no_pushb


@pytest.mark.parametrize("reply", [b"+OK\r\n", b"$-1\r\n", b":1\r\n", b"$2\r\n[]\r\n"])
def test_what_is_no_reply_to_pushb(reply: bytes) -> None:
    with pytest.raises(Unreadable):
        judge(batch("a"), reply, delivered=0, now=0.0)


@pytest.mark.parametrize(
    ("kills", "alone", "delivered", "fate"),
    [(0, False, 0, "again"), (1, False, 0, "split"), (4, True, 0, "behind"), (4, True, 1, "dead")],
)
def test_a_job_that_kills_the_link(kills: int, alone: bool, delivered: int, fate: str) -> None:
    one = batch("a", trouble=Trouble(kills=kills) if kills else None)
    one.alone = alone
    assert table(after_loss(one, head=True, by_silence=False, delivered=delivered)) == {"a": fate}
    assert table(after_loss(one, head=False, by_silence=False, delivered=delivered)) == {"a": "again"}
    assert table(after_loss(one, head=True, by_silence=True, delivered=delivered)) == {"a": "again"}


def test_judging_changes_nothing() -> None:
    before = batch("a", "b", trouble=Trouble(lone=1))
    entries = [msgspec.structs.asdict(entry) for entry in before.entries]
    for reply in (a_map(a=ODD), whole(PANIC), whole(DIAL), b"$2\r\n{}\r\n"):
        judge(before, reply, delivered=0, now=0.0)
    after_loss(before, head=True, by_silence=False, delivered=0)
    assert [msgspec.structs.asdict(entry) for entry in before.entries] == entries
