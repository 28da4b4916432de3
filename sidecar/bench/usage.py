"""What processes use, as Linux's /proc tells it; nothing elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")  # of /proc's CPU times, a second has so many


class Usage(msgspec.Struct, frozen=True):
    """Of one process, or of several together.

    Args:
        cpu: seconds since its start.
        written: bytes that it sent to storage since its start.
        rss: bytes of memory now.
    """

    cpu: float
    written: int
    rss: int


def available() -> bool:
    """Whether this system tells."""
    return (_PROC / "self" / "stat").exists()


def usage(pids: Iterable[int]) -> Usage:
    """What these processes have used so far; those that have ended count nothing."""
    found = [_of_one(pid) for pid in pids]
    return Usage(sum(one.cpu for one in found), sum(one.written for one in found), sum(one.rss for one in found))


def _of_one(pid: int) -> Usage:
    try:
        stat = (_PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
        io = dict(line.split(": ") for line in (_PROC / str(pid) / "io").read_text().splitlines())
    except (OSError, ValueError):
        return Usage(0.0, 0, 0)
    ticks = int(stat[11]) + int(stat[12])  # utime and stime, proc(5)
    return Usage(ticks / _TICK, int(io.get("write_bytes", 0)), int(stat[21]) * os.sysconf("SC_PAGE_SIZE"))


def machine_cpu() -> float:
    """CPU seconds that all processes of this machine have used, and that its host took away."""
    try:
        fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / _TICK


def exact_cpu(pid: int) -> float:
    """CPU seconds of the threads that a process has now, to the nanosecond (`usage` counts in hundredths)."""
    total = 0
    for task in (_PROC / str(pid) / "task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[0])
        except (OSError, ValueError):
            continue  # the thread has just ended, or the kernel doesn't tell
    return total / 1e9


def family(pid: int) -> list[int]:
    """A process and its children, theirs too."""
    found = [pid]
    for one in found:
        try:
            children = (_PROC / str(one) / "task" / str(one) / "children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
    return found
