"""The volume that a journal is or will be on: kind of file system, free space, time of an fsync."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
WRITES: Final = 10
WRITE_BYTES: Final = 4096  # a page of the journal

_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_LAYER: Final = frozenset({"overlay", "aufs"})
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "webdav"}
)


@dataclass(frozen=True, slots=True)
class Volume:
    """What is known of a volume.

    Args:
        kind: as the system calls it, `ext4`; `unknown` where it doesn't tell.
        free: bytes that we may still write.
        fsync: median seconds of a write and its sync.
        loses: what doesn't survive there, a sentence; None when nothing is wrong with it.
    """

    kind: str
    free: int
    fsync: float
    loses: str | None


def examine(directory: Path) -> Volume:
    """Look at the volume of a directory that need not exist yet; leaves nothing behind.

    Raises:
        OSError: nothing can be written there.
    """
    place = next(path for path in (directory, *directory.parents) if path.is_dir())
    kind = file_system(place)
    return Volume(kind, shutil.disk_usage(place).free, _time_of_fsync(place), what_is_lost(kind))


def what_is_lost(kind: str) -> str | None:
    """What a journal on this kind of file system doesn't survive, None when it survives all it promises."""
    if kind in _MEMORY:
        return f"{kind} is memory: jobs survive a kill of the process, not a restart of the machine or the pod"
    if kind in _LAYER:
        return f"{kind} is the container's own layer: jobs are gone with the container; mount a volume"
    if kind in _NETWORK or kind.startswith("fuse"):
        return f"{kind} is no local disk: neither its locks nor its fsync can be relied on"
    return None


def file_system(path: Path) -> str:
    """The kind of file system that `path` is on, `unknown` where the system doesn't tell."""
    if MOUNTS.exists():
        mounts = linux_mounts(MOUNTS.read_text(errors="surrogateescape").splitlines())
    elif sys.platform == "darwin":
        mounts = bsd_mounts(subprocess.run(["/sbin/mount"], capture_output=True, text=True).stdout.splitlines())
    else:
        return "unknown"
    return kind_of(path.resolve(), mounts)


def kind_of(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """The kind of the innermost mount that holds an absolute path; of two on one place the later one counts."""
    best, kind = -1, "unknown"
    for point, name in mounts:
        depth = len(Path(point).parts)
        if depth >= best and path.is_relative_to(point):
            best, kind = depth, name
    return kind


def linux_mounts(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Mount points and kinds in the format of /proc/self/mountinfo (proc(5))."""
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        found.append((point, after.split(" ")[0]))
    return found


def bsd_mounts(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Mount points and kinds as macOS's mount(8) prints them: `/dev/disk1 on / (apfs, local)`."""
    matches = (re.fullmatch(r".* on (.*) \((\w+).*\)", line) for line in lines)
    return [(match[1], match[2]) for match in matches if match is not None]


def _time_of_fsync(directory: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(WRITES):
            start = time.perf_counter()
            os.write(file.fileno(), bytes(WRITE_BYTES))
            if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: an fsync alone stays in the drive's cache
                fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            else:
                os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)
