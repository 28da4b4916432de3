"""What processes use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil


class Usage(msgspec.Struct, frozen=True):
    """Of one process, or of several together.

    Args:
        cpu: seconds since its start.
        written: bytes that it sent to storage since its start; 0 where the system doesn't tell.
        rss: bytes of memory now.
    """

    cpu: float
    written: int
    rss: int


def usage(pids: Iterable[int]) -> Usage:
    """What these processes have used so far; those that have ended count nothing."""
    found = [_of_one(pid) for pid in pids]
    return Usage(sum(one.cpu for one in found), sum(one.written for one in found), sum(one.rss for one in found))


def _of_one(pid: int) -> Usage:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            written = process.io_counters().write_bytes if hasattr(process, "io_counters") else 0
            return Usage(times.user + times.system, written, process.memory_info().rss)
    except psutil.Error:
        return Usage(0.0, 0, 0)


def exact_cpu(pid: int) -> float:
    """CPU seconds of a process that keeps its threads, to the nanosecond where Linux tells; `usage` has hundredths."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[0])
        except (OSError, ValueError):
            continue  # the thread has just ended, or the kernel doesn't tell
    return max(total / 1e9, usage([pid]).cpu)


def machine_cpu() -> float:
    """CPU seconds that all processes of this machine have used, and that its host took away."""
    times = psutil.cpu_times()
    return sum(getattr(times, part, 0.0) for part in ("user", "nice", "system", "irq", "softirq", "steal"))


def family(pid: int) -> list[int]:
    """A process and its children, theirs too."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return [pid]
