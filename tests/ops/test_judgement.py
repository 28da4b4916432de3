"""What facts mean: findings and advice, without any sidecar."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sidecar.config import Ack
from sidecar.metrics import LONG_BOUNDS, REASONS, SHORT_BOUNDS, SIZE_BOUNDS, Counts, Distribution
from sidecar.ops.advice import Verdict, advice
from sidecar.ops.facts import BatchFacts, Facts, JournalFacts, LinkFacts
from sidecar.ops.findings import Condition, Level, findings
from sidecar.ops.pulse import quantile
from sidecar.ops.texts import rate_text, span_text

LINK = LinkFacts(up=True, reason=None, since=600, round_trip=0.05, version="1.10.0", connects=1, in_flight=0)
DOWN = LinkFacts(
    up=False, reason="connect: refused", since=60, round_trip=0.05, version="1.10.0", connects=1, in_flight=0
)
JOURNAL = JournalFacts(
    directory="/j", bytes=17 << 20, max_bytes=1 << 30, jobs=0, dead=0, damaged=0, commit_p50=None, commit_p99=None
)


def batches(
    *, full: int = 0, timeout: int = 0, asked: int = 0, single: int = 0, size: int = 1, **more: Any
) -> BatchFacts:
    """So many batches of one size, by reason."""
    counts = {"full": full, "timeout": timeout, "asked": asked, "single": single}
    jobs = {reason: number * size for reason, number in counts.items()}
    bucket = next(i for i, bound in enumerate(SIZE_BOUNDS) if bound >= size)
    sizes = {reason: [number if i == bucket else 0 for i in range(14)] for reason, number in counts.items()}
    fields: dict[str, Any] = {
        "seconds": 300.0,
        "taken": sum(jobs.values()),
        "confirmed": 0,
        "passed": 0,
        "limit": 100,
        "max_size": 100,
        "linger": 0.05,
    }
    return BatchFacts(sizes=sizes, jobs=jobs, **(fields | more))


def facts(**changes: Any) -> Facts:
    """A sidecar in disk mode for which all is well, but for the changes."""
    fields: dict[str, Any] = {
        "mode": Ack.DISK,
        "legacy": False,
        "started": True,
        "draining": False,
        "uptime": 3600.0,
        "refusal": None,
        "refused_lately": None,
        "apart": 0,
        "apart_text": "",
        "refused_jobs": 0,
        "waiting": 0,
        "oldest": 0.0,
        "memory": 0,
        "memory_max": 64 << 20,
        "taken_rate": 0.0,
        "delivered_rate": 0.0,
        "delivered_lately": 0,
        "producers": 1,
        "consumers": 0,
        "dead_unkept": 0,
        "link": LINK,
        "journal": JOURNAL,
        "batches": batches(),
    }
    return Facts(**(fields | changes))


def journal(**changes: Any) -> JournalFacts:
    return msgspec.structs.replace(JOURNAL, **changes)


STUCK = {"waiting": 9, "oldest": 30.0}
CASES: list[tuple[dict[str, Any], list[Condition], Level]] = [
    ({}, [Condition.IDLE], Level.GOOD),
    ({"taken_rate": 3.0}, [Condition.BUSY], Level.GOOD),
    ({"link": DOWN}, [Condition.UPSTREAM_DOWN], Level.WARNING),
    ({"link": DOWN, "mode": Ack.UPSTREAM}, [Condition.UPSTREAM_DOWN], Level.BAD),
    ({"link": LinkFacts(False, None, 1, 0, "", 0, 0), "uptime": 1.0}, [Condition.CONNECTING], Level.NOTE),
    ({"refused_lately": "journal full"}, [Condition.REFUSING], Level.BAD),
    ({"refused_lately": "disk full", "link": DOWN}, [Condition.REFUSING, Condition.UPSTREAM_DOWN], Level.BAD),
    (STUCK, [Condition.STUCK], Level.WARNING),
    ({**STUCK, "delivered_lately": 1}, [Condition.BUSY], Level.GOOD),
    ({**STUCK, "oldest": 40.0, "delivered_lately": 50, "delivered_rate": 5.0}, [Condition.BEHIND], Level.NOTE),
    ({**STUCK, "link": msgspec.structs.replace(LINK, since=2.0)}, [Condition.BUSY], Level.GOOD),
    ({**STUCK, "batches": batches(linger=60.0)}, [Condition.BUSY], Level.GOOD),
    ({"apart": 2, "apart_text": "WRONGTYPE Operation"}, [Condition.APART], Level.WARNING),
    ({"journal": journal(dead=1)}, [Condition.DEAD_LETTERS], Level.WARNING),
    ({"journal": None, "mode": Ack.MEMORY, "dead_unkept": 2}, [Condition.DEAD_LETTERS], Level.WARNING),
    ({"journal": journal(bytes=800 << 20)}, [Condition.JOURNAL_HIGH], Level.WARNING),
    ({"journal": journal(damaged=1)}, [Condition.DAMAGED], Level.WARNING),
    ({"draining": True}, [Condition.DRAINING], Level.NOTE),
]


@pytest.mark.parametrize(("changes", "expected", "level"), CASES, ids=[str(case[1][0]) for case in CASES])
def test_findings(changes: dict[str, Any], expected: list[Condition], level: Level) -> None:
    found = findings(facts(**changes))
    assert [finding.condition for finding in found] == expected
    assert found[0].level is level
    for finding in found:
        assert finding.text.endswith((".", "`."))
        assert finding.title[:1].isupper() or finding.title[:1].isdigit()


ADVICE: list[tuple[str, dict[str, Any], Verdict, str]] = [
    ("nothing", {}, Verdict.UNKNOWN, "No jobs in the last minutes"),
    ("few", {"batches": batches(timeout=3)}, Verdict.UNKNOWN, "Too few"),
    ("full batches", {"batches": batches(full=50, size=100)}, Verdict.WORKING, "100 jobs a batch"),
    ("legacy", {"legacy": True}, Verdict.OFF, "BATCH_AUTO_ENABLED=false"),
    ("size one", {"batches": batches(full=90, max_size=1, limit=1)}, Verdict.OFF, "BATCH_MAX_SIZE=1"),
    ("thin", {"batches": batches(timeout=90)}, Verdict.NOT, "nothing to gain"),
    ("serial", {"batches": batches(timeout=9000, size=2)}, Verdict.PARTLY, "waits for each reply"),
    (
        "upstream",
        {"mode": Ack.UPSTREAM, "batches": batches(timeout=90)},
        Verdict.NOT,
        "SIDECAR_ACK=upstream",
    ),
    ("no linger", {"batches": batches(timeout=90, linger=0.0)}, Verdict.NOT, "BATCH_MAX_DELAY_MS=0"),
    ("halved", {"batches": batches(full=90, limit=1)}, Verdict.NOT, "ran out of time"),
    ("barriers", {"batches": batches(asked=90)}, Verdict.NOT, "ACK"),
    ("unique", {"batches": batches(single=90, confirmed=90)}, Verdict.NOT, "unique_for"),
    ("old Faktory", {"batches": batches(single=90)}, Verdict.NOT, "older than 1.6.0"),
    ("doubtful", {"batches": batches(timeout=20, passed=900)}, Verdict.NOT, "passed on"),
]


@pytest.mark.parametrize(
    ("changes", "verdict", "words"), [case[1:] for case in ADVICE], ids=[case[0] for case in ADVICE]
)
def test_advice(changes: dict[str, Any], verdict: Verdict, words: str) -> None:
    said = advice(facts(**changes))
    assert said.verdict is verdict
    assert words in f"{said.title} {said.text}"


def test_every_condition_can_be_found() -> None:
    assert {condition for case in CASES for condition in case[1]} == set(Condition)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00042, "0.4 ms"),
        (0.048, "48 ms"),
        (1.26, "1.3 s"),
        (42, "42 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


def test_rates() -> None:
    assert [rate_text(rate) for rate in (0, 0.44, 12.4, 1230)] == ["0", "0.4", "12", "1,230"]


def test_quantiles_lie_within_their_bucket() -> None:
    values = Distribution(SHORT_BOUNDS)
    for _ in range(99):
        values.record(0.0003)
    values.record(9.0)
    median = quantile(0.5, values.counts, values.bounds)
    assert median is not None
    assert 0.0002 < median <= 0.0005
    assert quantile(1.0, values.counts, values.bounds) == SHORT_BOUNDS[-1]
    assert quantile(0.5, [0] * 16, SHORT_BOUNDS) is None


@pytest.mark.parametrize("bounds", [SIZE_BOUNDS, SHORT_BOUNDS, LONG_BOUNDS])
def test_distributions_count_every_value_once(bounds: tuple[float, ...]) -> None:
    values = Distribution(bounds)
    for bound in bounds:
        values.record(bound)  # an upper end belongs to its bucket
    values.record(bounds[-1] * 2)
    assert values.counts == [1] * (len(bounds) + 1)
    assert values.total == pytest.approx(sum(bounds) + bounds[-1] * 2)


def test_what_is_remembered_of_a_refused_job_is_short_and_has_no_args() -> None:
    counts = Counts()
    for number in range(200):
        payload = b'{"jid":"j","jobtype":"%b","queue":"q","args":["secret"]}' % (b"T" * 5000)
        counts.reject(f"jid-{number}", payload, "no " * 1000, dead=number % 2 == 0)
    assert (counts.rejected, counts.dead, len(counts.recent)) == (200, 100, 50)
    last = counts.recent[-1]
    assert (last.jid, last.queue, len(last.type), len(last.reason)) == ("jid-199", "q", 100, 300)
    assert "secret" not in repr(counts.recent)
    counts.reject("x", b"no json", "why", dead=False)
    assert counts.recent[-1].type == ""


def test_reasons_of_batches_are_those_of_the_counters() -> None:
    assert set(Counts().batch_jobs) == set(REASONS)
