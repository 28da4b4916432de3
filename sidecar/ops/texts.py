"""Numbers as people read them."""

from __future__ import annotations

from sidecar.config import size_text

__all__ = ["count_text", "jobs_text", "rate_text", "size_text", "span_text"]


def jobs_text(count: int) -> str:
    """`1 job`, `1,204 jobs`."""
    return count_text(count, "job")


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def rate_text(rate: float) -> str:
    """Jobs a second: `0.4`, `12`, `1,230`."""
    return f"{rate:.1f}" if 0 < rate < 10 else f"{rate:,.0f}"


def span_text(seconds: float) -> str:
    """A time span: `0.3 ms`, `48 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 1:
        thousandths = seconds * 1000
        return f"{thousandths:.1f} ms" if thousandths < 10 else f"{thousandths:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    for (unit, size), (part, part_size) in ((("d", 86_400), ("h", 3600)), (("h", 3600), ("min", 60))):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part_size} {part}"
    return f"{whole // 60} min {whole % 60} s"
