"""Whether all is well, and what isn't: the one judgement that the page, health and metrics share. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

import msgspec

from sidecar.config import Ack
from sidecar.ops.facts import LATELY, Facts
from sidecar.ops.texts import jobs_text, rate_text, span_text

CONNECTING_FOR: Final = 3.0  # s after the start in which a missing link is no news
STUCK_AFTER: Final = 15.0  # s without a delivery while jobs wait: three times Faktory's own limit for a command
BEHIND_AFTER: Final = 30.0  # s of age from which waiting jobs are worth a word
JOURNAL_HIGH: Final = 0.7  # of its bound: there is still time to do something


class Level(enum.StrEnum):
    """How much somebody should care."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    BAD = "bad"


class Condition(enum.StrEnum):
    """What can be found; the names are stable, `/metrics` has them as a label."""

    IDLE = "idle"
    BUSY = "busy"
    CONNECTING = "connecting"
    UPSTREAM_DOWN = "upstream_down"
    REFUSING = "refusing"
    STUCK = "stuck"
    BEHIND = "behind"
    JOURNAL_HIGH = "journal_high"
    APART = "apart"
    DEAD_LETTERS = "dead_letters"
    DAMAGED = "damaged"
    DRAINING = "draining"


class Finding(msgspec.Struct, frozen=True):
    """One thing that is so.

    Args:
        title: in a few words.
        text: what it means, and what to do.
    """

    condition: Condition
    level: Level
    title: str
    text: str


_GRAVITY: Final = {Level.BAD: 0, Level.WARNING: 1, Level.NOTE: 2, Level.GOOD: 3}


def findings(facts: Facts) -> list[Finding]:
    """All that is so, the gravest first; never empty."""
    found = sorted(_troubles(facts), key=lambda finding: _GRAVITY[finding.level])
    return found or [_well(facts)]


def _troubles(facts: Facts) -> Iterator[Finding]:
    for look in (_refusing, _upstream, _stuck, _apart, _dead, _journal):
        finding = look(facts)
        if finding is not None:
            yield finding
    if facts.draining:
        yield Finding(
            Condition.DRAINING,
            Level.NOTE,
            "Stopping",
            f"It was asked to stop, and finishes acknowledged work first: {jobs_text(facts.waiting)} left.",
        )
    if facts.journal is not None and facts.journal.damaged:
        yield Finding(
            Condition.DAMAGED,
            Level.WARNING,
            f"{jobs_text(facts.journal.damaged)} in the journal were damaged",
            "They were set aside and not sent. `faktory-sidecar journal verify` tells more; look at the disk.",
        )


def _refusing(facts: Facts) -> Finding | None:
    reason = facts.refused_lately
    if reason is None:
        return None
    stay = "What was acknowledged stays and goes on leaving. " if facts.mode is Ack.DISK else ""
    return Finding(
        Condition.REFUSING,
        Level.BAD,
        "Jobs are being refused",
        f"{_sentence(reason)}. {stay}Jobs are taken again by themselves as soon as there is room.",
    )


def _upstream(facts: Facts) -> Finding | None:
    if facts.link.up:
        return None
    if not facts.link.connects and facts.uptime < CONNECTING_FOR:
        return Finding(Condition.CONNECTING, Level.NOTE, "Connecting to Faktory", "The sidecar has just started.")
    why = f"{_sentence(facts.link.reason or 'no connection')}; it is tried again every few seconds."
    if facts.mode is Ack.UPSTREAM:
        meanwhile = "Jobs are refused after 4 s until it is back, because +OK means here that Faktory has the job."
        return Finding(Condition.UPSTREAM_DOWN, Level.BAD, "Faktory can't be reached", f"{why} {meanwhile}")
    where = "the journal" if facts.mode is Ack.DISK else "memory"
    waiting = f"{jobs_text(facts.waiting)} waiting" if facts.waiting else "none is waiting"
    meanwhile = f"Jobs are still accepted, into {where}: {waiting}. Workers get none until it is back."
    if facts.refused_lately is not None:
        meanwhile = f"{jobs_text(facts.waiting)} waiting in {where}."
    return Finding(Condition.UPSTREAM_DOWN, Level.WARNING, "Faktory can't be reached", f"{why} {meanwhile}")


def _stuck(facts: Facts) -> Finding | None:
    if not (facts.link.up and facts.waiting):
        return None
    patience = STUCK_AFTER + facts.batches.linger
    if facts.oldest > patience and not facts.delivered_lately and facts.link.since > LATELY:
        return Finding(
            Condition.STUCK,
            Level.WARNING,
            "Faktory answers, and takes no jobs",
            f"{jobs_text(facts.waiting)} waiting, the oldest for {span_text(facts.oldest)}. Look at Faktory and at its "
            "Redis: stalled, out of memory or read-only. The log has Faktory's words.",
        )
    if facts.oldest > BEHIND_AFTER + facts.batches.linger:
        left = facts.waiting / facts.delivered_rate if facts.delivered_rate else 0.0
        done = f" About {span_text(left)} to go at this pace, if no more came." if left else ""
        return Finding(
            Condition.BEHIND,
            Level.NOTE,
            "Catching up",
            f"{jobs_text(facts.waiting)} waiting, the oldest for {span_text(facts.oldest)}; "
            f"{rate_text(facts.delivered_rate)} jobs/s leave.{done}",
        )
    return None


def _apart(facts: Facts) -> Finding | None:
    if not facts.apart:
        return None
    end = "the log has their jids then" if facts.mode is Ack.MEMORY else "they become dead letters"
    return Finding(
        Condition.APART,
        Level.WARNING,
        f"{jobs_text(facts.apart)} refused while others are taken",
        f"Faktory said of the latest: {facts.apart_text or 'words of an earlier run'}. Nobody waits for these jobs any "
        f"more; each is tried again every minute, and after five such refusals in words that nobody knows {end}. Look "
        "at Faktory's Redis, and at the queue they go to.",
    )


def _dead(facts: Facts) -> Finding | None:
    if facts.dead:
        many = "dead letter" if facts.dead == 1 else "dead letters"
        return Finding(
            Condition.DEAD_LETTERS,
            Level.WARNING,
            f"{facts.dead:,} {many}",
            "Faktory refused these acknowledged jobs for good. They are kept until somebody decides: "
            "`faktory-sidecar journal dead ls`, then `retry` or `discard`.",
        )
    if facts.dead_unkept:
        return Finding(
            Condition.DEAD_LETTERS,
            Level.WARNING,
            f"{jobs_text(facts.dead_unkept)} refused after their +OK",
            "Faktory refused these acknowledged jobs for good. SIDECAR_ACK=memory keeps no dead letters; the log has "
            "their jids.",
        )
    return None


def _journal(facts: Facts) -> Finding | None:
    journal = facts.journal
    if journal is None or facts.refused_lately is not None:
        return None
    share = journal.bytes / journal.max_bytes
    if share < JOURNAL_HIGH:
        return None
    return Finding(
        Condition.JOURNAL_HIGH,
        Level.WARNING,
        f"The journal is {share:.0%} full",
        "When it is full, jobs are refused. It empties as Faktory takes jobs and dead letters are retried or "
        "discarded; SIDECAR_JOURNAL_MAX_BYTES is its bound.",
    )


def _well(facts: Facts) -> Finding:
    link = facts.link
    far = f"Faktory {link.version} is {span_text(link.round_trip)} away."
    if facts.taken_rate or facts.delivered_rate or facts.waiting:
        return Finding(
            Condition.BUSY,
            Level.GOOD,
            "All is well",
            f"{rate_text(facts.taken_rate)} jobs/s in, {rate_text(facts.delivered_rate)} jobs/s out. {far}",
        )
    return Finding(Condition.IDLE, Level.GOOD, "All is well", f"Idle: nothing waits. {far}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
