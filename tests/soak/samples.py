"""What a process holds, second by second, as Linux tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Sample:
    """One look.

    Args:
        at: seconds since the soak began.
        acknowledged: jobs so far.
        rss, peak: MiB, now and at most in the life of this process.
        descriptors: open ones.
    """

    at: float
    acknowledged: int
    rss: float
    peak: float
    descriptors: int


def look(pid: int, at: float, acknowledged: int) -> Sample | None:
    """A sample; None when the process has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        rss, peak = (int(status.split(f"{what}:")[1].split()[0]) / 1024 for what in ("VmRSS", "VmHWM"))
    except (OSError, IndexError):
        return None
    return Sample(at, acknowledged, rss, peak, descriptors(pid))


def descriptors(pid: int) -> int:
    """Open descriptors of a process; 0 when it has ended."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def growth(calm: list[Sample]) -> tuple[float, int] | None:
    """MiB by which RSS grew from the first third of these samples to the last, and the jobs between; None when too few.

    Args:
        calm: samples of one process, taken while nobody attacked and little waited.
    """
    third = len(calm) // 3
    if third < 2:
        return None
    first, last = calm[:third], calm[-third:]
    jobs = median(one.acknowledged for one in last) - median(one.acknowledged for one in first)
    return median(one.rss for one in last) - median(one.rss for one in first), int(jobs)
