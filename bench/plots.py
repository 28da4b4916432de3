"""Plots as SVG, drawn here: axes with even or logarithmic steps, lines, bars with whiskers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

from bench.results import REPLY_TIMES, Results, median, speed

WIDTH, HEIGHT = 900, 480  # pixels
LEFT, RIGHT, TOP, BOTTOM = 78, 286, 62, 54  # pixels around the plot itself
COLOURS: Final = ("#0b6bcb", "#d1495b", "#2f9e44", "#e8890c", "#7048e8", "#12858a", "#868e96", "#5c4033")
STYLE: Final = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#343a40}"
    ".title{font-size:16px;font-weight:600}.note{font-size:12px;fill:#6c757d}"
    ".grid{stroke:#e9ecef}.axis{stroke:#868e96}"
)

TRIP_ROWS: Final[Mapping[str, str]] = {
    "link": "the link's limit (raw, pipelined)",
    "disk-pushb": "sidecar, disk: PUSHB of 1,000",
    "disk-http-batch": "sidecar, disk: HTTP batches of 1,000",
    "memory-1": "sidecar, memory: one pyfaktory producer",
    "disk-1": "sidecar, disk: one pyfaktory producer",
    "guide": "direct: PUSHB of 100, one at a time",
    "direct-1": "direct: one pyfaktory producer",
}
REPLY_ROWS: Final[Mapping[str, str]] = {
    "direct-1": "direct, 1 producer",
    "proxy-1": "plain proxy, 1",
    "upstream-1": "upstream, 1",
    "upstream-16": "upstream, 16",
    "upstream-64": "upstream, 64",
    "local-1": "local Faktory, 1",
    "local-16": "local Faktory, 16",
    "disk-1": "disk, 1",
    "disk-16": "disk, 16",
    "disk-64": "disk, 64",
    "paced": "disk, 16 at 1,000/s",
    "memory-1": "memory, 1",
    "memory-16": "memory, 16",
    "memory-64": "memory, 64",
}


@dataclass(slots=True)
class Canvas:
    """An SVG being drawn."""

    title: str
    note: str
    width: int = WIDTH
    height: int = HEIGHT
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> None:
        """A line of text whose baseline is at `y`."""
        name = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line of the grid or of an axis."""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def path(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """A line through points, with a dot at each."""
        steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{steps}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/>' for x, y in points]

    def box(self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> None:
        """A filled rectangle."""
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect {place} rx="2" fill="{colour}" fill-opacity="{opacity:g}"/>')

    def svg(self) -> str:
        """All of it."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-label="{escape(self.title)}">'
            f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        )
        title = f'<text x="18" y="27" class="title">{escape(self.title)}</text>'
        note = f'<text x="18" y="46" class="note">{escape(self.note)}</text>'
        return "\n".join([head, title, note, *self.parts, "</svg>"]) + "\n"


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic scale from powers of ten to pixels."""

    low: int
    high: int
    start: float
    end: float

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> Scale:
        """One that holds all of these values, which are above 0."""
        low = math.floor(math.log10(min(values)) + 1e-9)
        return cls(low, max(low + 1, math.ceil(math.log10(max(values)) - 1e-9)), start, end)

    def place(self, value: float) -> float:
        """The pixel of a value."""
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """The powers of ten."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def write_plots(results: Results, directory: Path) -> list[Path]:
    """Writes the plots that these results are enough for; returns their files."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {"rates.svg": rates(results), "replies.svg": replies(results)}
    files = []
    for name, canvas in drawn.items():
        if canvas is not None:
            files.append(directory / name)
            files[-1].write_text(canvas.svg())
    return files


def rates(results: Results) -> Canvas | None:
    """Jobs a second over the round trip; None without two round trips."""
    trips = sorted(results.trips)
    lines = {
        label: [(number, found) for number, rtt in enumerate(trips) if (found := _speed(results, row, rtt))]
        for row, label in TRIP_ROWS.items()
    }
    values = [value for points in lines.values() for _, value in points]
    if len(trips) < 2 or not values:
        return None
    canvas = Canvas("Jobs a second over the round trip", _note(results))
    scale = Scale.around(values, HEIGHT - BOTTOM, TOP)
    right = WIDTH - RIGHT
    for tick in scale.ticks():
        y = scale.place(tick)
        canvas.line(LEFT, y, right, y, "grid")
        canvas.text(LEFT - 8, y + 4, f"{tick:,.0f}", anchor="end")
    step = (right - LEFT) / (len(trips) - 1)
    for number, rtt in enumerate(trips):
        x = LEFT + number * step
        canvas.line(x, TOP, x, HEIGHT - BOTTOM, "grid")
        canvas.text(x, HEIGHT - BOTTOM + 20, f"{rtt * 1000:g} ms", anchor="middle")
    canvas.line(LEFT, HEIGHT - BOTTOM, right, HEIGHT - BOTTOM, "axis")
    canvas.text((LEFT + right) / 2, HEIGHT - 14, "round trip to Faktory", anchor="middle", kind="note")
    ends = []
    for (label, points), colour in zip(lines.items(), COLOURS, strict=False):
        if points:
            placed = [(LEFT + number * step, scale.place(value)) for number, value in points]
            canvas.path(placed, colour)
            ends.append((placed[-1][1], label, colour))
    _labels(canvas, ends)
    return canvas


def _labels(canvas: Canvas, ends: list[tuple[float, str, str]]) -> None:
    """The names of lines at their right ends, moved apart where they would overlap."""
    lowest = -math.inf
    for y, label, colour in sorted(ends):
        lowest = max(y, lowest + 17)
        canvas.box(WIDTH - RIGHT + 10, lowest - 5, 10, 10, colour)
        canvas.text(WIDTH - RIGHT + 26, lowest + 4, label, kind="note")


def replies(results: Results) -> Canvas | None:
    """Time to the reply at the main round trip: median, 99th percentile, longest; None where no row has it."""
    found: list[tuple[str, list[float]]] = []
    for row, label in REPLY_ROWS.items():
        measured = results.of(row, results.main)
        times = [time * 1000 for value in REPLY_TIMES if measured and (time := median(measured, value))]
        if len(times) == len(REPLY_TIMES):
            found.append((label, times))
    if not found:
        return None
    height = TOP + BOTTOM + 26 * len(found)
    title = f"Time to the reply at a round trip of {results.main * 1000:g} ms"
    canvas = Canvas(title, _note(results), height=height)
    scale = Scale.around([time for _, times in found for time in times], 160, WIDTH - 150)
    for tick in scale.ticks():
        x = scale.place(tick)
        canvas.line(x, TOP, x, height - BOTTOM, "grid")
        canvas.text(x, height - BOTTOM + 18, f"{tick:g} ms", anchor="middle")
    for number, (label, times) in enumerate(found):
        _bar(canvas, scale, TOP + 26 * number + 4, label, times)
    legend = "dark: median · light: 99th percentile · line: longest"
    canvas.text((160 + WIDTH - 150) / 2, height - 12, legend, anchor="middle", kind="note")
    return canvas


def _bar(canvas: Canvas, scale: Scale, y: float, label: str, times: Sequence[float]) -> None:
    start, (p50, p99, longest) = scale.start, (scale.place(time) for time in times)
    colour = COLOURS[0] if not label.startswith(("direct", "plain", "local")) else COLOURS[6]
    canvas.text(start - 10, y + 13, label, anchor="end")
    canvas.line(start, y + 9, longest, y + 9, "axis")
    canvas.box(start, y, p99 - start, 18, colour, 0.35)
    canvas.box(start, y, p50 - start, 18, colour)
    canvas.text(longest + 6, y + 13, " / ".join(f"{time:.3g}" for time in times) + " ms", kind="note")


def _speed(results: Results, row: str, rtt: float) -> float | None:
    measured = results.of(row, rtt)
    return speed(measured) if measured else None


def _note(results: Results) -> str:
    """What was measured, and where: each plot says it."""
    machine = results.machine
    rounds = len(results.rounds)
    return (
        f"{results.faktory}, links by {results.links}, {machine.cores} cores, {machine.file_system}, "
        f"median of {rounds}, {machine.date}"
    )
