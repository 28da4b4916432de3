"""What the status page shows, in sections that are sent again only when they have changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import trio

import sidecar
from sidecar.metrics import NAME, REASONS, SIZE_BOUNDS, TEXT, titles
from sidecar.ops.advice import Advice, advice
from sidecar.ops.facts import BatchFacts, Facts, Gauge, JournalFacts, LinkFacts
from sidecar.ops.findings import Finding, findings
from sidecar.ops.promise import Promise, SettingRow, promise, settings_in_force

if TYPE_CHECKING:
    from sidecar.journal import Journal

LETTERS = 50  # dead letters that are shown, the latest
READ_WITHIN = 0.5  # s for the journal to tell them; its thread may hang on the disk
READ_EVERY = 10.0  # s after which they are read again although their number is the same


class Letter(msgspec.Struct, frozen=True):
    """A dead letter as it is shown; never its args."""

    at: float
    jid: str
    type: str
    queue: str
    reason: str
    attempts: int


class Head(msgspec.Struct, frozen=True):
    """What stays as it is while the process runs."""

    version: str
    upstream: str
    started: float
    promise: Promise
    reasons: tuple[str, ...]
    bounds: tuple[int, ...]


class Now(msgspec.Struct, frozen=True):
    """This second."""

    at: float
    findings: list[Finding]
    accepting: bool
    mode: str
    waiting: int
    oldest: float
    memory: int
    memory_max: int
    taken_rate: float
    delivered_rate: float
    producers: int
    consumers: int
    link: LinkFacts
    journal: JournalFacts | None


class Batches(msgspec.Struct, frozen=True):
    """The batches of the last minutes."""

    advice: Advice
    seconds: float
    sizes: dict[str, list[int]]
    max_size: int


class Totals(msgspec.Struct, frozen=True):
    """Jobs since the start; `refusals` by reason, of ours."""

    taken: int
    delivered: int
    rejected: int
    dead: int
    in_doubt: int
    resent: int
    passed: int
    refusals: dict[str, int]


class Letters:
    """The latest dead letters, read from the journal when there may be other ones."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._count = 0
        self._read_at = 0.0
        self.shown: list[Letter] = []

    async def refresh(self) -> None:
        """Read them if need be; what was read before stays while the journal doesn't answer."""
        journal, now = self._journal, trio.current_time()
        if journal is None or (journal.dead == self._count and now - self._read_at < READ_EVERY):
            return
        self._count, self._read_at = journal.dead, now
        if not journal.dead:
            self.shown = []
            return
        with trio.move_on_after(READ_WITHIN):
            self.shown = [
                Letter(
                    letter.at,
                    letter.jid[:NAME],
                    (found := titles(letter.payload)).jobtype,
                    found.queue,
                    letter.reason[:TEXT],
                    letter.attempts,
                )
                for letter in await journal.letters(LETTERS)
            ]


def head(gauge: Gauge) -> Head:
    """The section that never changes."""
    return Head(
        version=sidecar.__version__,
        upstream=gauge.settings.upstream.identity,
        started=gauge.pulse.started,
        promise=promise(gauge.settings),
        reasons=REASONS,
        bounds=SIZE_BOUNDS,
    )


def setting_rows(gauge: Gauge) -> list[SettingRow]:
    """The settings in force."""
    return settings_in_force(gauge.settings)


def changing(gauge: Gauge, letters: Letters) -> dict[str, object]:
    """The sections that may change, by name."""
    facts = gauge.read()
    counts = gauge.counts
    return {
        "now": _now(facts),
        "batches": _batches(facts.batches, advice(facts)),
        "totals": Totals(
            taken=sum(jobs for (_, lane), jobs in counts.taken.items() if lane != "passed"),
            delivered=counts.delivered,
            rejected=counts.rejected,
            dead=counts.dead,
            in_doubt=counts.in_doubt,
            resent=counts.resent,
            passed=counts.taken.get(("fwp", "passed"), 0),
            refusals=dict(counts.refused),
        ),
        "letters": letters.shown,
        "refused": list(counts.recent)[::-1],
    }


def _now(facts: Facts) -> Now:
    return Now(
        at=time.time(),
        findings=findings(facts),
        accepting=facts.refusal is None,
        mode="legacy" if facts.legacy else str(facts.mode),
        waiting=facts.waiting,
        oldest=facts.oldest,
        memory=facts.memory,
        memory_max=facts.memory_max,
        taken_rate=facts.taken_rate,
        delivered_rate=facts.delivered_rate,
        producers=facts.producers,
        consumers=facts.consumers,
        link=facts.link,
        journal=facts.journal,
    )


def _batches(batches: BatchFacts, said: Advice) -> Batches:
    return Batches(said, batches.seconds, batches.sizes, batches.max_size)
