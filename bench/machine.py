"""The machine that a run was on."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from pathlib import Path

import msgspec

import sidecar
from sidecar.journal.volume import examine


class Machine(msgspec.Struct, frozen=True):
    """What figures depend on.

    Args:
        fsync: median seconds of a small write and its fsync, before the run.
        load: how many processes wanted a core in the last minute, before the run.
    """

    date: str
    command: str
    version: str
    system: str
    processor: str
    cores: int
    memory: int
    python: str
    file_system: str
    fsync: float
    load: float


def describe(directory: Path) -> Machine:
    """This machine, with the disk of a directory."""
    volume = examine(directory)
    return Machine(
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        command="python -m bench " + shlex.join(sys.argv[1:]),
        version=sidecar.__version__,
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        file_system=volume.kind,
        fsync=volume.fsync,
        load=os.getloadavg()[0],
    )


def state_directory() -> Path:
    """Where journals are by default: the disk that counts."""
    xdg = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".local" / "state") / "faktory-sidecar"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
