"""What is counted. Hot paths add to plain integers; `/metrics` and the status page read them.

Units: jobs, bytes, seconds. Everything counts from the start of the process. What is recorded as a distribution is
recorded once a batch or once a commit, never once a job.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

SIZE_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Jobs of a batch: up to the largest BATCH_MAX_SIZE."""
SHORT_BOUNDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds of a commit and of the event loop's lag: from a fast disk's 0.1 ms to a stalled one."""
LONG_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
"""Seconds of a linger and of a reply: from loopback to the reply timeout and the longest BATCH_MAX_DELAY_MS."""

REASONS: Final = ("full", "timeout", "asked", "single")
"""Why a command with jobs left: the batch was full, its linger was over, somebody waited for it, or it had to travel as
a `PUSH` of its own."""

RECENT: Final = 50  # refused jobs that are remembered word for word
TEXT: Final = 300  # characters of upstream's words that are kept; `NAME` of a jid, a type or a queue
NAME: Final = 100


class Distribution:
    """How often values fell where, as a Prometheus histogram has it.

    Args:
        bounds: upper ends of the buckets, rising; one more bucket takes what is above the last.

    Attributes:
        counts: values by bucket, not cumulated.
        total: their sum.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def record(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Refused(msgspec.Struct, frozen=True):
    """A job that upstream refused for good; never its args.

    Args:
        at: unix seconds.
        reason: upstream's words.
        dead: it was acknowledged before; else its producer was told.
    """

    at: float
    jid: str
    type: str
    queue: str
    reason: str
    dead: bool


class Titles(msgspec.Struct):
    """What a person needs to know of a job to recognise it."""

    jobtype: str = ""
    queue: str = "default"


_decode_titles = msgspec.json.Decoder(Titles).decode


def titles(payload: bytes) -> Titles:
    """Type and queue of a job's JSON, cut to `NAME` characters; empty where it can't be read."""
    try:
        found = _decode_titles(payload)
    except msgspec.DecodeError:
        return Titles("", "")
    return Titles(found.jobtype[:NAME], found.queue[:NAME] or "default")


@dataclass(slots=True)
class Counts:
    """Plain counters, one writer (the event loop), many readers.

    Attributes:
        taken: jobs acknowledged or given to the link, by (edge, lane).
        refused: commands and jobs answered with an error of ours, by reason.
        delivered: jobs that upstream accepted.
        rejected: jobs that upstream refused for good; `dead` those of them that were acknowledged before.
        in_doubt: jobs sent, whose link was lost before the reply.
        recovered: stored jobs that nobody knew of, found and sent; each of them is in doubt too.
        resent: jobs sent again for whatever reason.
        batches: commands with jobs that were sent.
        producers, consumers: local connections now (levels).
        passing: passed-through commands without a reply now (a level), but for FETCHes.
        batch_jobs: sizes of the batches that were sent, by reason (`REASONS`).
        linger: how long the first job of each batch waited for it to leave.
        reply: from sending a batch to its reply.
        commit: the journal's transactions, sync included; `commit_jobs` the jobs that each added.
        loop_lag: how late the event loop was, sampled once a second.
        recent: the latest jobs that upstream refused for good.
    """

    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    delivered: int = 0
    rejected: int = 0
    dead: int = 0
    in_doubt: int = 0
    recovered: int = 0
    resent: int = 0
    batches: int = 0
    producers: int = 0
    consumers: int = 0
    passing: int = 0
    batch_jobs: dict[str, Distribution] = field(
        default_factory=lambda: {reason: Distribution(SIZE_BOUNDS) for reason in REASONS}
    )
    linger: Distribution = field(default_factory=lambda: Distribution(LONG_BOUNDS))
    reply: Distribution = field(default_factory=lambda: Distribution(LONG_BOUNDS))
    commit: Distribution = field(default_factory=lambda: Distribution(SHORT_BOUNDS))
    commit_jobs: Distribution = field(default_factory=lambda: Distribution(SIZE_BOUNDS))
    loop_lag: Distribution = field(default_factory=lambda: Distribution(SHORT_BOUNDS))
    recent: deque[Refused] = field(default_factory=lambda: deque(maxlen=RECENT))

    def take(self, edge: str, lane: str, jobs: int) -> None:
        """Count jobs that an edge took (`fwp`, `http`) into a lane (`coalesced`, `confirmed`, `passed`)."""
        key = (edge, lane)
        self.taken[key] = self.taken.get(key, 0) + jobs

    def refuse(self, reason: str, jobs: int = 1) -> None:
        """Count a refusal of ours by a stable reason (`journal_full`, `upstream_down`, `line_too_long`)."""
        self.refused[reason] = self.refused.get(reason, 0) + jobs

    def sent(self, jobs: int, reason: str, waited: float | None) -> None:
        """Count a command with jobs.

        Args:
            reason: one of `REASONS`.
            waited: seconds since its first job was offered, None where that isn't known.
        """
        self.batches += 1
        self.batch_jobs[reason].record(jobs)
        if waited is not None:
            self.linger.record(waited)

    def committed(self, jobs: int, seconds: float) -> None:
        """Count a transaction of the journal; one that only deletes has no jobs."""
        self.commit.record(seconds)
        if jobs:
            self.commit_jobs.record(jobs)

    def reject(self, jid: str, payload: bytes, reason: str, *, dead: bool) -> None:
        """Count a job that upstream refused for good, and remember what a person needs to know of it."""
        self.rejected += 1
        self.dead += dead
        found = titles(payload)
        self.recent.append(Refused(time.time(), jid[:NAME], found.jobtype, found.queue, reason[:TEXT], dead))
