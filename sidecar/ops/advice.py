"""Is batching working, and if not, why? Answered from the batches of the last minutes. Pure."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from sidecar.config import Ack
from sidecar.ops.facts import BatchFacts, Facts
from sidecar.ops.texts import count_text, rate_text, span_text

WORKING_FROM: Final = 5.0  # jobs a batch on average: four of five round trips are saved
FEW: Final = 10  # batches that say nothing yet
MOST: Final = 0.5


class Verdict(enum.StrEnum):
    """What the batches of the last minutes show."""

    UNKNOWN = "unknown"
    WORKING = "working"
    PARTLY = "partly"
    NOT = "not"
    OFF = "off"


class Advice(msgspec.Struct, frozen=True):
    """The answer; `text` says why, and what would help."""

    verdict: Verdict
    title: str
    text: str


def advice(facts: Facts) -> Advice:
    """The answer for these facts."""
    batches = facts.batches
    if facts.legacy:
        return Advice(
            Verdict.OFF, "Batching is off", "BATCH_AUTO_ENABLED=false: each job is a PUSH of its own, as set."
        )
    if batches.max_size == 1:
        return Advice(Verdict.OFF, "Batching is off", "BATCH_MAX_SIZE=1: a batch of one job is no batch.")
    if batches.batches < FEW:
        return Advice(
            Verdict.UNKNOWN,
            "Too few jobs to tell" if batches.batches else "No jobs in the last minutes",
            f"A batch leaves with {batches.max_size:,} jobs, or when its first job has waited "
            f"{span_text(batches.linger)}.",
        )
    mean = f"{batches.mean:.1f}" if batches.mean < 10 else f"{batches.mean:,.0f}"
    summary = f"{count_text(batches.batches, 'round trip')} for {count_text(sum(batches.jobs.values()), 'job')}"
    if batches.mean >= WORKING_FROM:
        return Advice(
            Verdict.WORKING, f"Batching works: {mean} jobs a batch", f"{summary} in {span_text(batches.seconds)}."
        )
    verdict = Verdict.NOT if batches.mean < 2 else Verdict.PARTLY
    title = "Batching isn't working" if verdict is Verdict.NOT else "Batching works a little"
    return Advice(verdict, f"{title}: {mean} jobs a batch", f"{summary}. {_why(facts)}")


def _why(facts: Facts) -> str:
    batches = facts.batches
    total = batches.batches
    if batches.count("single") > MOST * total:
        return _why_single(batches)
    if facts.mode is Ack.UPSTREAM:
        return (
            "With SIDECAR_ACK=upstream a producer that pushes one job at a time waits for Faktory's verdict on it, so "
            f"a batch holds about one job of each producer ({count_text(facts.producers, 'producer')} now). More "
            "producers, PUSHB, pipelining, or SIDECAR_ACK=disk make it more."
        )
    if batches.limit < batches.max_size:
        return (
            f"Faktory ran out of time for larger batches, so at most {batches.limit:,} jobs leave at once for now; "
            "that grows back by itself. Look at Faktory's Redis."
        )
    if batches.linger == 0:
        return "BATCH_MAX_DELAY_MS=0: a batch leaves with what is there. 50 lets jobs gather."
    if batches.count("asked") > MOST * total:
        return (
            "Most batches leave early because somebody waits for them: a worker's ACK, or another command between two "
            "pushes, must see the jobs before it in Faktory; a producer's own small PUSHB doesn't linger either."
        )
    return _why_thin(batches)


def _why_single(batches: BatchFacts) -> str:
    if batches.confirmed:
        return (
            "Most jobs have unique_for or bid in their custom data: only Faktory can judge them, so each travels as a "
            "PUSH of its own, many at a time."
        )
    return "This Faktory is older than 1.6.0 and has no PUSHB: each job travels as a PUSH of its own, many at a time."


def _why_thin(batches: BatchFacts) -> str:
    rate = batches.taken / batches.seconds if batches.seconds else 0.0
    arriving = rate * batches.linger
    if batches.passed > batches.taken:
        return (
            "Most commands are passed on as they are, because Faktory might refuse them: jobs whose fields aren't as "
            "Faktory documents them. docs/troubleshooting.md says which."
        )
    calm = (
        f"Batches leave by timeout, because only {rate_text(rate)} jobs/s come: {arriving:.1f} in the "
        f"{span_text(batches.linger)} that a batch waits. "
    )
    if arriving < 1:
        return calm + "With so few jobs there is nothing to gain, and nobody waits: +OK doesn't wait for the batch."
    return (
        calm
        + "A producer that pushes one job at a time and waits for each reply sets that pace. More producers at once, "
        "PUSHB, or a longer BATCH_MAX_DELAY_MS make larger batches."
    )
