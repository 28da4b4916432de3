"""What the journal's volume is, and what survives on it: said at start and by `check`."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MEASUREMENTS = 7
SLOW_SYNC = 0.02
"""Seconds: above this each lone job waits noticeably for its `+OK`."""
FAST_SYNC = 2e-5
"""Seconds: below this nothing can have reached a medium."""

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_CONTAINER = frozenset({"overlay", "overlayfs", "aufs", "fuse.fuse-overlayfs"})
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "ceph", "glusterfs", "9p", "lustre", "fuse.sshfs"}
)


@dataclass(frozen=True, slots=True)
class Volume:
    """The file system beneath a directory.

    Attributes:
        kind: as the system names it (`ext4`, `apfs`, `tmpfs`); `unknown` where it doesn't say.
        free: bytes that this user may still write.
        sync: median seconds of a small write with its sync; None when it wasn't measured.
    """

    kind: str
    free: int
    sync: float | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Where `+OK` would promise more than this volume keeps, and what survives."""
        found: list[str] = []
        if self.kind in _MEMORY:
            found.append(
                f"the journal is on {self.kind}, which is memory: acknowledged jobs survive a crash of the sidecar, "
                "not a reboot or the removal of the container; use a directory on a disk"
            )
        elif self.kind in _CONTAINER:
            found.append(
                "the journal is in the container's own layer: acknowledged jobs survive a restart of the process, "
                "not the removal of the container or the pod; mount a volume there"
            )
        elif self.kind in _NETWORK:
            found.append(
                f"the journal is on a network file system ({self.kind}): its locks and syncs may not hold, and one "
                "mounted on two hosts can be damaged; use a disk of this host"
            )
        if self.sync is not None and self.sync > SLOW_SYNC:
            found.append(f"a sync takes {self.sync * 1000:.0f} ms here: a lone job waits so long for its +OK")
        if self.sync is not None and self.sync < FAST_SYNC and self.kind not in _MEMORY:
            found.append(
                f"a sync takes {self.sync * 1e6:.0f} µs, faster than any disk: something beneath it doesn't wait for "
                "the medium, so a power failure can take acknowledged jobs"
            )
        return tuple(found)


def examine(directory: Path, *, measure: bool = True) -> Volume:
    """Looks at the volume beneath a directory, or beneath the nearest parent that exists.

    Args:
        measure: write and sync a small temporary file there a few times.

    Raises:
        OSError: the directory can't be looked at, or not written to when measuring.
    """
    place = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    volume = os.statvfs(place)
    sync = _measured(place) if measure else None
    return Volume(_kind(place), volume.f_bavail * volume.f_frsize, sync)


def _measured(place: Path) -> float:
    with tempfile.TemporaryFile(dir=place) as file:
        taken: list[float] = []
        for _ in range(MEASUREMENTS):
            started = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            _sync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _kind(place: Path) -> str:
    if sys.platform == "darwin":
        return _kind_by_mount(place.resolve(), _mount_output())
    try:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return "unknown"
    return kind_in_mountinfo(place.resolve(), table)


def kind_in_mountinfo(place: Path, table: str) -> str:
    """The type of the file system a path is on, by `/proc/self/mountinfo` (proc(5)): the longest mount point wins."""
    best, kind = -1, "unknown"
    for line in table.splitlines():
        mount, separator, rest = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        if place.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), rest.split(" ")[0]
    return kind


def _mount_output() -> str:
    done = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5, check=False)
    return done.stdout


def _kind_by_mount(place: Path, table: str) -> str:
    """The same by macOS's `mount`: `/dev/disk3s1 on / (apfs, local)`."""
    best, kind = -1, "unknown"
    for found in re.finditer(r"^.* on (.+) \(([^,)]+)", table, re.MULTILINE):
        if place.is_relative_to(found[1]) and len(found[1]) >= best:
            best, kind = len(found[1]), found[2]
    return kind
