"""What a soak must come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.budget import WAIT
from tests.ledger.book import duplicates
from tests.soak.findings import Findings, Span
from tests.soak.honest import Honest
from tests.soak.samples import growth

NOTHING_LEFT: Final = "Stopped. No job is left behind."

REPLY_LIMIT: Final = 1.0
"""Seconds of an honest client's slowest reply beside any attack, while nothing else is in trouble."""
LATEST_REPLY: Final = 6.0
"""The same in trouble: the promised 4, and what a busy machine adds."""
LARGE: Final = "-burst-"
"""In the jids of those whose commands are large."""
FLAT: Final = 500_000
"""Jobs for which memory may grow by 1 MiB."""


@dataclass
class Verdict:
    """Lines, each with what was found, and whether that is as it must be."""

    lines: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, what: str, found: object, *, ok: bool = True, limit: object = None) -> None:
        """A line of the table."""
        text = f"{what}: {found:,}" if isinstance(found, int) else f"{what}: {found}"
        if limit is not None:
            text += f" (<= {limit:,})" if isinstance(limit, int) else f" (<= {limit})"
        self.lines.append(f"{'ok    ' if ok else 'MISSED'} {text}")
        if not ok:
            self.missed.append(text)


def unexplained(records: list[tuple[float, dict[str, Any]]], spans: list[Span]) -> list[str]:
    """Records of the level ERROR and above that no trouble of their time explains, in words; with when each came."""
    found = []
    for at, record in records:
        if record.get("level") not in ("error", "critical", "ERROR", "CRITICAL"):
            continue
        event = str(record.get("event"))
        if not any(span.covers(at, at) and event in span.explains for span in spans):
            found.append(f"{at:.0f} s: {event}: {record.get('message')}")
    return found


def judge(found: Findings, honest: Honest, *, most_rss: float, warm_after: float, reply_limit: float) -> Verdict:
    """Everything that a soak is for.

    Args:
        most_rss: MiB that the process may take, whatever is sent to it.
        warm_after: seconds after which memory must be flat.
        reply_limit: seconds of an honest client's slowest reply beside attacks alone.
    """
    verdict, book = Verdict(), found.book
    false = book.false_replies(found.arrived)
    doubled = duplicates(found.arrived)
    verdict.add("acknowledged", len(book.accepted))
    verdict.add("refused", len(book.refused))
    verdict.add("unanswered", len(book.unanswered))
    verdict.add("lost", len(book.accepted - found.arrived.keys()), ok=not book.accepted - found.arrived.keys(), limit=0)
    verdict.add("replies that aren't true", false[:5], ok=not false)
    verdict.add("sent twice, of those said to be in doubt", doubled, ok=doubled <= found.said, limit=found.said)
    verdict.add("the end", found.stopped, ok=found.stopped == NOTHING_LEFT)
    _judge_workers(verdict, found, honest)
    _judge_memory(verdict, found, most_rss, warm_after)
    verdict.add(
        "descriptors at the end",
        found.descriptors_after,
        ok=found.descriptors_after <= found.descriptors_before,
        limit=found.descriptors_before,
    )
    _judge_replies(verdict, found, reply_limit)
    errors = unexplained(found.records, found.spans)
    verdict.add("errors that no trouble explains", len(errors), ok=not errors, limit=0)
    for line in errors[:10]:
        verdict.lines.append(f"         {line}")
    return verdict


def _judge_workers(verdict: Verdict, found: Findings, honest: Honest) -> None:
    done = honest.done
    verdict.add("jobs that workers ran", len(done.acknowledged))
    verdict.add("of them run again after their +OK", len(done.again), ok=len(done.again) <= found.said)
    forgotten = done.acknowledged & found.reserved
    verdict.add("ACKs answered +OK that Faktory doesn't know", len(forgotten), ok=len(forgotten) == 0, limit=0)
    verdict.add("refusals of workers' commands", len(done.refused))


def _judge_memory(verdict: Verdict, found: Findings, most_rss: float, warm_after: float) -> None:
    peak = max((one.peak for one in found.samples), default=0.0)
    verdict.add("RSS at most (MiB)", f"{peak:.1f}", ok=peak < most_rss, limit=most_rss)
    grown = growth([one for one in found.calm if one.at >= warm_after])
    if grown is None:
        verdict.add("RSS after warming up", "too few samples to say")
        return
    mib, jobs = grown
    limit = max(1.0, jobs / FLAT)
    verdict.add(f"RSS grew over {jobs:,} jobs (MiB)", f"{mib:.2f}", ok=mib <= limit, limit=f"{limit:.2f}")


def _judge_replies(verdict: Verdict, found: Findings, limit: float) -> None:
    """The slowest reply in trouble, but for those that the process was frozen for, and the slowest without any.

    A burst is a large command itself: it waits for its turn among the attacks', and is told when that takes too long.
    """
    troubled = alone = large = (0.0, "")
    for came, seconds, what in found.book.slow:
        at = came - found.began
        met = {span.name for span in found.spans if span.covers(at - seconds, at)}
        if not met and LARGE in what:
            large = max(large, (seconds, f"{what} at {at:.0f} s"))
        elif not met:
            alone = max(alone, (seconds, f"{what} at {at:.0f} s"))
        elif "freeze" not in met:
            troubled = max(troubled, (seconds, f"{what} at {at:.0f} s"))
    for where, (seconds, what), most in (
        ("in trouble", troubled, LATEST_REPLY),
        ("beside attacks alone", alone, limit),
        ("of a large command beside attacks alone", large, WAIT + limit),
    ):
        verdict.add(f"slowest reply {where} (s)", f"{seconds:.2f} {what}", ok=seconds < most, limit=most)
