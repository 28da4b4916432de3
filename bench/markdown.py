"""Puts the figures of a run into a Markdown page: `python -m bench.markdown RESULTS.json PAGE.md`.

The page has places for them, `<!-- bench:NAME -->` … `<!-- bench:end -->`; what stands between is replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.results import OURS, REPLY_TIMES, Results, cpu_per_million, median, others_at, speed
from bench.rows import ROWS, Kind
from bench.show import figure, verdict_cells
from bench.targets import MIB

_PLACE: Final = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- bench:end -->)", re.DOTALL)

_README: Final = (
    ("one pyfaktory producer, direct", "direct-1", "direct-1"),
    ("… through the sidecar, `disk`: `+OK` means fsynced", "disk-1", "direct-1"),
    ("… through the sidecar, `memory`", "memory-1", "direct-1"),
    ("16 pyfaktory producers, direct", "direct-16", "direct-16"),
    ("… through the sidecar, `disk`", "disk-16", "direct-16"),
    ("… through the sidecar, `memory`", "memory-16", "direct-16"),
    ("… on a Faktory on the same machine", "local-16", "direct-16"),
    ("`PUSHB` of 100, one after the other, direct", "guide", "direct-1"),
    ("`PUSHB` of 1,000 through the sidecar, `disk`", "disk-pushb", "direct-1"),
    ("HTTP batches of 1,000 through the sidecar, `disk`", "disk-http-batch", "direct-1"),
    ("a raw client that never waits: the link's limit", "link", "direct-1"),
)
_TRIPS: Final = (
    ("direct, one pyfaktory producer", "direct-1"),
    ("sidecar `disk`, one pyfaktory producer", "disk-1"),
    ("sidecar `memory`, one pyfaktory producer", "memory-1"),
    ("direct, `PUSHB` of 100 one at a time (the guide's way)", "guide"),
    ("sidecar `disk`, `PUSHB` of 1,000", "disk-pushb"),
    ("sidecar `disk`, HTTP batches of 1,000", "disk-http-batch"),
    ("raw client, pipelined without bound (the link's limit)", "link"),
)
_CLAIMS: Final = (
    ("no batching at 1 ms: 333/s", (("direct, one at a time", "direct-1", 0.001),)),
    ("no batching at 10–50 ms: 10–50/s", (("at 10 ms", "direct-1", 0.01), ("at 50 ms", "direct-1", 0.05))),
    (
        "batches of 100 at 1 ms: 33,000/s",
        (("one at a time", "guide", 0.001), ("pipelined by the sidecar", "disk-pushb", 0.001)),
    ),
    (
        "batches of 100 at 50 ms: 2,000/s",
        (("one at a time", "guide", 0.05), ("pipelined by the sidecar", "disk-pushb", 0.05)),
    ),
)


def page_with(page: str, results: Results) -> str:
    """A page with these figures in its places."""

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}{PARTS[match[2]](results).strip()}\n{match[3]}"

    return _PLACE.sub(filled, page)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are figures."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine(results: Results) -> str:
    """What was measured, where and how."""
    one = results.machine
    trips = ", ".join(f"{asked * 1000:g} ms: {real * 1000:.1f} ms" for asked, real in results.trips.items())
    others = ", ".join(f"{rtt * 1000:g} ms: {others_at(results, rtt):.1f}" for rtt in results.trips)
    return "\n".join(
        [
            f"*   `{one.command}`, {one.date}, faktory-sidecar {one.version}, {len(results.rounds)} rounds, median",
            f"*   {one.cores} cores ({one.processor}), {one.memory / 2**30:.0f} GiB, {one.system}, {one.python}, "
            f"{one.file_system}",
            f"*   {results.faktory}; links by {results.links}; round trips as asked for and as measured: {trips}",
            f"*   cores that other programs used meanwhile (medians): {others}",
        ]
    )


def readme(results: Results) -> str:
    """The first table of the README."""
    rows = []
    for label, name, base in _README:
        rate, reply = _speed(results, name, results.main), _reply(results, name)
        compared = _speed(results, base, results.main)
        if rate is None or compared is None:
            continue
        factor = rate / compared
        rows.append(
            [label, _figure(rate), reply, "1" if name == base else f"{factor:,.0f}" if factor >= 10 else figure(factor)]
        )
    return table([f"at a round trip of {results.main * 1000:g} ms", "jobs/s", "reply p50", "× direct"], rows)


def targets(results: Results) -> str:
    """The targets, met or not."""
    rows = [verdict_cells(verdict) for verdict in results.verdicts]
    return table(["target", "round trip", "measured", "rounds", "at least", "", "reach for"], rows)


def trips(results: Results) -> str:
    """Jobs a second over the round trip."""
    rows = []
    for label, name in _TRIPS:
        found = [_speed(results, name, rtt) for rtt in results.trips]
        rows.append([label, *map(_figure, found)])
    return table(["jobs/s at", *(f"{rtt * 1000:g} ms" for rtt in results.trips)], rows)


def rows(results: Results) -> str:
    """Every row at the main round trip."""
    lines = []
    for row in ROWS:
        measured = results.of(row.name, results.main)
        if not measured or row.kind is Kind.IDLE:
            continue
        times = [median(measured, value) for value in REPLY_TIMES]
        lines.append(
            [
                f"`{row.name}`",
                row.label,
                _figure(median(measured, lambda one: one.rate)),
                _figure(median(measured, lambda one: one.delivered_rate)),
                *("–" if time is None else figure(time * 1000) for time in times),
                _figure(cpu_per_million(measured)) if row.way.is_sidecar else "–",
                _figure(cpu_per_million(measured, OURS)),
            ]
        )
    headings = ["row", "", "jobs/s", "delivered", "p50 ms", "p99 ms", "max ms", "CPU s/10⁶: sidecar", "all"]
    return table(headings, lines)


def cost(results: Results) -> str:
    """What a job costs."""
    lines = []
    for producers in (1, 4, 16, 64):
        if measured := results.of(f"disk-{producers}", results.main):
            disk = median(measured, lambda one: one.written / one.jobs if one.jobs else None)
            rss = median(measured, lambda one: one.rss / MIB)
            figures = [
                _speed(results, f"disk-{producers}", results.main),
                cpu_per_million(measured),
                None,
                None,
                disk,
                rss,
            ]
            lines.append([f"{producers} producers", *map(_figure, figures)])
    if results.cost is not None:
        for one in results.cost.costs:
            figures = [one.rate, one.cpu, one.up, one.down, one.disk, one.rss / MIB]
            lines.append([f"{one.part} {one.at}", *map(_figure, figures)])
    headings = ["`disk` mode", "jobs/s", "CPU s/10⁶", "bytes up", "bytes down", "bytes to disk", "RSS MiB"]
    return table(headings, lines)


def drained(results: Results) -> str:
    """What became of the largest backlog."""
    found = results.cost.drained if results.cost is not None else None
    if found is None:
        return "Not measured."
    return (
        f"A backlog of {found.jobs:,} jobs: the sidecar listened {found.started_after:.2f} s after its start (the "
        f"journal dropped from the page cache before), drained at {found.rate:,.0f} jobs/s, "
        f"{found.rate / found.link:.2f} of the link's limit measured before and after ({found.link:,.0f}), with "
        f"{found.cpu:.0f} CPU seconds for a million jobs and at most {found.rss / MIB:.0f} MiB of memory."
    )


def claims(results: Results) -> str:
    """The guide's claims beside what was measured."""
    lines = []
    for claim, parts in _CLAIMS:
        told = [f"{label}: {_figure(_speed(results, name, rtt))}/s" for label, name, rtt in parts]
        lines.append([claim, "; ".join(told)])
    for claim, rtt in (("33–40 times as fast, 50 ms", 0.05), ("100 times as fast, 1 ms", 0.001)):
        told = []
        for label, name in (
            ("one pyfaktory producer, disk", "disk-1"),
            ("memory", "memory-1"),
            ("PUSHB", "disk-pushb"),
        ):
            rate, direct = _speed(results, name, rtt), _speed(results, "direct-1", rtt)
            if rate is not None and direct is not None:
                told.append(f"{label}: {figure(rate / direct)}x")
        lines.append([claim, "; ".join(told)])
    return table(["the guide says", "measured here"], lines)


PARTS: Final[dict[str, Callable[[Results], str]]] = {
    part.__name__: part for part in (machine, readme, targets, trips, rows, cost, drained, claims)
}


def _speed(results: Results, name: str, rtt: float) -> float | None:
    measured = results.of(name, rtt)
    return speed(measured) if measured else None


def _reply(results: Results, name: str) -> str:
    time = median(results.of(name, results.main), lambda one: one.p50)
    return "–" if time is None else f"{figure(time * 1000)} ms"


def _figure(value: float | None) -> str:
    return "–" if value is None else figure(value)


def main(results: str, page: str) -> None:
    """Replaces the figures of a page."""
    found = msgspec.json.decode(Path(results).read_bytes(), type=Results, strict=False)
    place = Path(page)
    place.write_text(page_with(place.read_text(), found))


if __name__ == "__main__":
    main(*sys.argv[1:])
