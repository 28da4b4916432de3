"""The numbers for Prometheus. docs/metrics.md has a section for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.logs import defects, lost_lines
from sidecar.metrics import REASONS, Counts, Distribution
from sidecar.ops.facts import Facts, Gauge
from sidecar.ops.findings import Condition, findings

PREFIX: Final = "faktory_sidecar"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# Told from the start, as 0: a rate over a series that appears with its first event misses that event.
REFUSALS: Final = ("full", "journal", "slow_disk", "not_sent", "in_doubt", "line_too_long")
LANES: Final = (("fwp", "coalesced"), ("fwp", "confirmed"), ("http", "coalesced"), ("http", "confirmed"))


class Exposition:
    """`/metrics`, in a registry of its own."""

    def __init__(self, gauge: Gauge) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(gauge))
        ProcessCollector(namespace=PREFIX, registry=self._registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def families(self) -> list[Metric]:
        """All metrics, for those who look for one."""
        return list(self._registry.collect())


class _Collector(Collector):
    """Reads the counters and the facts when it is asked."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not checked for clashes in a registry of our own."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric with its present values."""
        gauge = self._gauge
        facts = gauge.read()
        info = {"version": __version__, "mode": "legacy" if facts.legacy else str(facts.mode)}
        yield InfoMetricFamily(f"{PREFIX}_build", "Version, and what +OK means.", value=info)
        yield from _jobs(gauge.counts, info["mode"])
        yield from _batches(gauge.counts)
        yield from _state(facts)
        yield from _link(facts, gauge)
        yield from _journal(facts, gauge.counts)
        yield from _process(gauge.counts)


def _jobs(counts: Counts, mode: str) -> Iterator[Metric]:
    taken = CounterMetricFamily(f"{PREFIX}_jobs_taken", "Jobs taken by the intake.", labels=("edge", "lane", "mode"))
    for edge, lane in LANES:
        taken.add_metric((edge, lane, mode), counts.taken.get((edge, lane), 0))
    yield taken
    yield _counter("commands_passed", "Commands passed to Faktory as they are.", counts.taken.get(("fwp", "passed"), 0))
    refused = CounterMetricFamily(
        f"{PREFIX}_refusals", "Jobs and commands answered with an error of the sidecar's own.", labels=("reason",)
    )
    for reason in (*REFUSALS, *(each for each in counts.refused if each not in REFUSALS)):
        refused.add_metric((reason,), counts.refused.get(reason, 0))
    yield refused
    yield _counter("jobs_delivered", "Jobs that Faktory accepted.", counts.delivered)
    rejected = CounterMetricFamily(f"{PREFIX}_jobs_rejected", "Jobs that Faktory refused for good.", labels=("fate",))
    rejected.add_metric(("told",), counts.rejected - counts.dead)
    rejected.add_metric(("dead_letter",), counts.dead)
    yield rejected
    yield _counter("jobs_recovered", "Stored jobs that nobody knew of, by a defect, found and sent.", counts.recovered)
    yield _counter("jobs_in_doubt", "Jobs sent whose reply was lost or came too late.", counts.in_doubt)
    yield _counter("jobs_resent", "Jobs sent again.", counts.resent)


def _batches(counts: Counts) -> Iterator[Metric]:
    sizes = HistogramMetricFamily(f"{PREFIX}_batch_jobs", "Jobs of each batch that was sent.", labels=("reason",))
    for reason in REASONS:
        buckets, total = _buckets(counts.batch_jobs[reason])
        sizes.add_metric((reason,), buckets, total)
    yield sizes
    yield _histogram("batch_linger_seconds", "How long the first job of a batch waited to leave.", counts.linger)
    yield _histogram("batch_reply_seconds", "From sending a batch to Faktory's reply.", counts.reply)


def _state(facts: Facts) -> Iterator[Metric]:
    yield _gauge("accepting", "1 while jobs are accepted.", facts.refusal is None)
    condition = GaugeMetricFamily(
        f"{PREFIX}_condition", "1 for what is so right now, as the status page has it.", labels=("condition",)
    )
    found = {finding.condition for finding in findings(facts)}
    for each in Condition:
        condition.add_metric((each,), each in found)
    yield condition
    yield _gauge("jobs_waiting", "Jobs taken and not settled, but for those that wait apart.", facts.waiting)
    yield _gauge("jobs_apart", "Jobs that Faktory refuses while it takes others; they are tried again.", facts.apart)
    yield _gauge("oldest_job_seconds", "Age of the oldest job that is not settled; 0 when none waits.", facts.oldest)
    yield _gauge("memory_bytes", "Memory of jobs that are nowhere else.", facts.memory)
    yield _gauge("memory_max_bytes", "SIDECAR_MEMORY_MAX_BYTES.", facts.memory_max)
    yield _gauge("producers", "Local connections that push.", facts.producers)
    yield _gauge("consumers", "Local connections that fetch, each with a tunnel to Faktory.", facts.consumers)


def _link(facts: Facts, gauge: Gauge) -> Iterator[Metric]:
    link = facts.link
    upstream = {"upstream": gauge.settings.upstream.identity, "version": link.version}
    yield InfoMetricFamily(f"{PREFIX}_upstream", "Where jobs go, and its version.", value=upstream)
    yield _gauge("link_up", "1 while there is a link to Faktory.", link.up)
    yield _gauge("link_round_trip_seconds", "The last measured round trip to Faktory.", link.round_trip)
    yield _counter("link_connects", "Links made; all but the first are reconnects.", link.connects)
    yield _gauge("link_in_flight_jobs", "Jobs sent whose reply is owed.", link.in_flight)
    yield _gauge("commands_in_flight", "Passed commands whose reply is owed, but for FETCH.", gauge.counts.passing)


def _journal(facts: Facts, counts: Counts) -> Iterator[Metric]:
    journal = facts.journal
    if journal is None:
        return
    yield _gauge("journal_jobs", "Jobs stored.", journal.jobs)
    yield _gauge("journal_dead_letters", "Dead letters kept.", journal.dead)
    yield _gauge("journal_damaged_rows", "Rows set aside because they are not what was written.", journal.damaged)
    yield _gauge("journal_bytes", "Database, WAL and reserve on disk.", journal.bytes)
    yield _gauge("journal_max_bytes", "SIDECAR_JOURNAL_MAX_BYTES.", journal.max_bytes)
    yield _histogram("journal_commit_seconds", "Transactions of the journal, fsync included.", counts.commit)
    yield _histogram("journal_commit_jobs", "Jobs that one transaction stored.", counts.commit_jobs)


def _process(counts: Counts) -> Iterator[Metric]:
    yield _histogram("event_loop_lag_seconds", "How late the event loop was, once a second.", counts.loop_lag)
    failed = CounterMetricFamily(f"{PREFIX}_defects", "Mistakes of ours that came to light.", labels=["where"])
    for where, times in sorted(defects().items()):
        failed.add_metric([where], times)
    yield failed
    yield _counter("log_lines_lost", "Log lines that could not be written.", lost_lines())


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", help, value=value)


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help, value=value)


def _histogram(name: str, help: str, values: Distribution) -> Metric:
    buckets, total = _buckets(values)
    return HistogramMetricFamily(f"{PREFIX}_{name}", help, buckets=buckets, sum_value=total)


def _buckets(values: Distribution) -> tuple[list[tuple[str, float]], float]:
    ends = [*(f"{bound:g}" for bound in values.bounds), "+Inf"]
    return list(zip(ends, accumulate(values.counts), strict=True)), values.total
