"""What `examine` calls certain, told to the real Faktory: it takes every one, and stores what it would have stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest

from sidecar.protocol.jobs import DEFAULT_RETRY, Job, examine, examine_array
from tests.protocol import generated
from tests.real.faktory_server import RealFaktory

pytestmark = pytest.mark.real

STAMP = b"2026-11-23T19:00:00.123456Z"
SEEDS = range(6)
JOBS = 1500
PIECE = 100  # commands on their way at once: neither side's socket buffer fills up


@pytest.mark.parametrize("seed", SEEDS)
def test_a_certain_job_is_taken_and_stored_as_if_unstamped(faktory: RealFaktory, seed: int) -> None:
    written = list(generated.jobs(seed, JOBS))
    certain = [(job.payload, found) for job in written if (found := examine(job.payload, STAMP))]
    assert len(certain) > JOBS / 3
    assert [job.payload for job in written if job.plain and examine(job.payload, STAMP) is None] == []

    originals = [payload for payload, _ in certain]
    assert refused(originals, pushed(faktory, originals)) == []
    direct = stored(faktory)
    faktory.flush()
    stamped = [job.payload for _, job in certain]
    assert refused(stamped, pushed(faktory, stamped)) == []
    by_push = stored(faktory)
    faktory.flush()
    assert set(pushed_in_bulk(faktory, stamped)) == {b"$2\r\n{}\r\n"}
    by_bulk = stored(faktory)

    assert by_push.keys() == by_bulk.keys() == direct.keys() == {job.jid for _, job in certain}
    for payload, job in certain:
        expected = expected_store(json.loads(payload), direct[job.jid])
        assert by_bulk[job.jid] == expected, payload
        assert by_push[job.jid] == expected, payload


@pytest.mark.parametrize("seed", [100, 101])
def test_a_certain_bulk_is_taken_whole(faktory: RealFaktory, seed: int) -> None:
    arrays = [line[6:] for line in generated.commands(seed, 3000) if line.startswith(b"PUSHB ")]
    certain = [(array, jobs) for array in arrays if (jobs := examine_array(array, STAMP)) is not None]
    assert len(certain) > len(arrays) / 3
    with faktory.client() as client:
        for array, jobs in certain:
            assert client.raw_call(b"PUSHB " + array) == b"$2\r\n{}\r\n", array
            assert client.raw_call(bulk_of(jobs)) == b"$2\r\n{}\r\n", array


def test_no_rule_is_needlessly_wide_of_the_mark(faktory: RealFaktory) -> None:
    """Of the generated jobs that Faktory takes, most are certain: the fast lane is not a promise for a few."""
    written = [job.payload for job in generated.jobs(200, JOBS)]
    taken = [payload for payload, reply in zip(written, pushed(faktory, written), strict=True) if reply == b"+OK\r\n"]
    certain = [payload for payload in taken if examine(payload, STAMP)]
    assert len(taken) > JOBS / 2
    assert len(certain) > 0.75 * len(taken)


def pushed(faktory: RealFaktory, payloads: list[bytes]) -> list[bytes]:
    """The replies to a PUSH of each."""
    return said(faktory, [b"PUSH " + payload for payload in payloads])


def pushed_in_bulk(faktory: RealFaktory, payloads: list[bytes]) -> list[bytes]:
    """The replies to PUSHBs of them."""
    return said(faktory, [b"PUSHB [" + b",".join(piece) + b"]" for piece in pieces(payloads, 50)])


def said(faktory: RealFaktory, lines: list[bytes]) -> list[bytes]:
    replies = []
    with faktory.client() as client:
        for piece in pieces(lines, PIECE):
            client.send(b"".join(line + b"\r\n" for line in piece))
            replies += [client.raw_reply() for _ in piece]
    return replies


def pieces(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece


def refused(payloads: list[bytes], replies: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(p, reply) for p, reply in zip(payloads, replies, strict=True) if reply != b"+OK\r\n"]


def bulk_of(jobs: list[Job]) -> bytes:
    return b"PUSHB [" + b",".join(job.payload for job in jobs) + b"]"


def stored(faktory: RealFaktory) -> dict[str, list[dict[str, Any]]]:
    """Everything in the server by jid: what is stored, with the place where it is."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    keys = faktory.redis("KEYS", "q:*")  # not the set `queues`: after a FLUSH Faktory doesn't fill it again
    assert isinstance(keys, list)
    for queue in [str(key).removeprefix("q:") for key in keys]:
        for job in faktory.stored(queue):
            found[job["jid"]].append({**without_moment(job), "place": queue})
    for job in faktory.stored_sorted():
        found[job["jid"]].append({**job, "place": "scheduled"})
    return found


def without_moment(job: dict[str, Any]) -> dict[str, Any]:
    """Without the moment at which the server put it into its queue."""
    return {key: value for key, value in job.items() if key != "enqueued_at"}


def expected_store(original: dict[str, Any], direct: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the server stored for the unstamped original, with our stamps where the original left them out."""
    stamps: dict[str, Any] = {}
    if not original.get("created_at"):
        stamps["created_at"] = STAMP.decode()
    if original.get("retry") is None:
        stamps["retry"] = DEFAULT_RETRY
    return [job | stamps for job in direct]
