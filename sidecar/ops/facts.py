"""The sidecar as it is right now, in numbers: read from its parts, told by health, metrics and the status page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from sidecar.config import Ack, Settings
from sidecar.metrics import REASONS, SHORT_BOUNDS, Counts
from sidecar.ops.pulse import Pulse, quantile

if TYPE_CHECKING:
    from sidecar.forwarder import Forwarder
    from sidecar.forwarder.batching import Batcher
    from sidecar.intake import Intake
    from sidecar.journal import Journal
    from sidecar.upstream.link import Link


class LinkFacts(msgspec.Struct, frozen=True):
    """The link. Seconds; `since` is how long it has been up, or down."""

    up: bool
    reason: str | None
    since: float
    round_trip: float
    version: str
    connects: int
    in_flight: int


class JournalFacts(msgspec.Struct, frozen=True):
    """The journal. Bytes on disk; commits in seconds, over the last minutes, None when there was none."""

    directory: str
    bytes: int
    max_bytes: int
    jobs: int
    dead: int
    damaged: int
    commit_p50: float | None
    commit_p99: float | None


class BatchFacts(msgspec.Struct, frozen=True):
    """The batches of the last minutes.

    Args:
        seconds: how far back that is.
        sizes: by reason, how many had how many jobs (buckets of `SIZE_BOUNDS`).
        jobs: by reason.
        taken, confirmed, passed: jobs taken, those of them that waited for upstream's verdict, commands passed on.
        limit: jobs of a batch at most, right now; `max_size` as set.
        linger: seconds.
    """

    seconds: float
    sizes: dict[str, list[int]]
    jobs: dict[str, int]
    taken: int
    confirmed: int
    passed: int
    limit: int
    max_size: int
    linger: float

    @property
    def batches(self) -> int:
        """Commands with jobs."""
        return sum(map(sum, self.sizes.values()))

    def count(self, reason: str) -> int:
        """Commands that left for a reason."""
        return sum(self.sizes[reason])

    @property
    def mean(self) -> float:
        """Jobs of a command; 0 when there was none."""
        return sum(self.jobs.values()) / self.batches if self.batches else 0.0


class Facts(msgspec.Struct, frozen=True):
    """Everything that findings are made from.

    Args:
        mode: what `+OK` means; `legacy`: each job travels by itself.
        refusal: why jobs are not accepted at this moment, None: they are.
        refused_lately: the same for the last seconds; a full journal is full and not full many times a second.
        waiting: unsettled jobs; `oldest` the age of the oldest, in seconds. Neither knows of those that wait `apart`.
        apart_text: what Faktory said of the latest of these.
        refused_jobs, delivered_lately: jobs of the last `LATELY` seconds.
        memory: bytes that jobs hold which are nowhere else.
        taken_rate, delivered_rate: jobs a second.
        dead_unkept: acknowledged jobs that upstream refused and that nothing has stored: lost, but for the log.
    """

    mode: Ack
    legacy: bool
    started: bool
    draining: bool
    uptime: float
    refusal: str | None
    refused_lately: str | None
    refused_jobs: int
    waiting: int
    apart: int
    apart_text: str
    oldest: float
    memory: int
    memory_max: int
    taken_rate: float
    delivered_rate: float
    delivered_lately: int
    producers: int
    consumers: int
    dead_unkept: int
    link: LinkFacts
    journal: JournalFacts | None
    batches: BatchFacts

    @property
    def dead(self) -> int:
        """Dead letters that are kept."""
        return self.journal.dead if self.journal is not None else 0


LATELY = 10
"""Seconds that count as just now."""


@dataclass(slots=True)
class Gauge:
    """Reads the facts off the parts of a sidecar.

    Attributes:
        started: the listeners and the journal are up.
        draining: it was asked to stop.
    """

    settings: Settings
    mode: Ack
    intake: Intake
    forwarder: Forwarder
    batcher: Batcher
    link: Link
    journal: Journal | None
    counts: Counts
    pulse: Pulse
    started: bool = False
    draining: bool = False

    def read(self) -> Facts:
        """The facts of this moment."""
        pulse, now = self.pulse, trio.current_time()
        refusal = self.intake.refusal_reason()
        lately = refusal
        if lately is None and pulse.refusing is not None and now - pulse.refusing[1] <= LATELY:
            lately = pulse.refusing[0]
        if lately is None and pulse.within(LATELY, "turned_away"):
            lately = "some jobs find no room: there is still room for smaller ones"
        return Facts(
            mode=self.mode,
            legacy=not self.settings.auto_batch,
            started=self.started,
            draining=self.draining,
            uptime=time.time() - pulse.started,
            refusal=refusal,
            refused_lately=lately,
            refused_jobs=pulse.within(LATELY, "refused"),
            waiting=self.intake.waiting,
            apart=self.forwarder.apart.jobs,
            apart_text=self.forwarder.apart.text,
            oldest=self.oldest(),
            memory=self.forwarder.unstored_memory,
            memory_max=self.settings.memory_max_bytes,
            taken_rate=pulse.rate("taken"),
            delivered_rate=pulse.rate("delivered"),
            delivered_lately=pulse.within(LATELY, "delivered"),
            producers=self.counts.producers,
            consumers=self.counts.consumers,
            dead_unkept=self.counts.dead if self.mode is Ack.MEMORY else 0,
            link=self.read_link(),
            journal=self._read_journal(),
            batches=self._read_batches(),
        )

    def oldest(self) -> float:
        """Age of the oldest job that is not settled, in seconds; 0 when none waits."""
        if not self.intake.waiting:
            return 0.0
        ages = []
        apart = self.forwarder.apart.jobs and not self.forwarder.backlog  # the journal's oldest may be one of them
        if self.journal is not None and self.journal.oldest and not apart:
            ages.append(time.time() - self.journal.oldest)
        if (offered := self.batcher.oldest) is not None:
            ages.append(trio.current_time() - offered)
        return max([0.0, *ages])

    def read_link(self) -> LinkFacts:
        """The link."""
        link = self.link
        return LinkFacts(
            up=link.pipe is not None,
            reason=link.down_reason,
            since=max(0.0, trio.current_time() - self.pulse.link_since),
            round_trip=link.round_trip,
            version=link.version,
            connects=link.connects,
            in_flight=self.forwarder.in_flight,
        )

    def _read_journal(self) -> JournalFacts | None:
        journal = self.journal
        if journal is None:
            return None
        before = self.pulse.earlier.commits
        commits = [after - earlier for after, earlier in zip(self.counts.commit.counts, before, strict=True)]
        return JournalFacts(
            directory=str(self.settings.journal_dir),
            bytes=journal.size,
            max_bytes=self.settings.journal_max_bytes,
            jobs=journal.waiting,
            dead=journal.dead,
            damaged=journal.damaged,
            commit_p50=quantile(0.5, commits, SHORT_BOUNDS),
            commit_p99=quantile(0.99, commits, SHORT_BOUNDS),
        )

    def _read_batches(self) -> BatchFacts:
        before, now = self.pulse.earlier, self.pulse.marks()
        return BatchFacts(
            seconds=now.at - before.at,
            sizes={
                reason: [after - earlier for after, earlier in zip(now.sizes[i], before.sizes[i], strict=True)]
                for i, reason in enumerate(REASONS)
            },
            jobs={reason: int(now.jobs[i] - before.jobs[i]) for i, reason in enumerate(REASONS)},
            taken=now.taken - before.taken,
            confirmed=now.confirmed - before.confirmed,
            passed=now.passed - before.passed,
            limit=self.batcher.max_jobs,
            max_size=self.settings.batch_max_size,
            linger=self.batcher.linger,
        )
