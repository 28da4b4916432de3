"""How much room there is: the bound of the directory, the volume's free space, and the reserve for a full disk.

On a full disk SQLite can't even delete: a deletion goes to the WAL first. So a preallocated file stands in the
directory. When the disk is full it is unlinked, which makes room for the WAL's contents and for deletions; it comes
back before a job is accepted again.
"""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.journal.connection import PAGE_BYTES
from sidecar.journal.schema import DB_NAME
from sidecar.journal.store import Store

MIB = 1024 * 1024
RESERVE_NAME = "reserve"
RESERVE_BYTES = 16 * MIB
"""More than the WAL's usual size (a checkpoint is due at 4 MiB) and a transaction of deletions."""
WAL_LIMIT = 16 * MIB
"""Above this the WAL file is cut back to nothing; the bound leaves so much room for it."""
CHECKPOINT_DUE = 4 * MIB
VACUUM_DUE = 256
"""Free pages (1 MiB) that are not worth giving back."""
VACUUM_WHOLE = 4 * MIB
"""Live bytes up to which the whole file is written anew: that costs as much WAL, and some 20 ms."""
VACUUM_PAGES = 25
"""Pages given back in one step else, some 5 ms: SQLite looks for each through the list of free pages."""
ROW_OVERHEAD = 48
"""Bytes a job takes beside its payload, about: mark, id, cell and page headers."""


def human(size: int) -> str:
    """A size for people: `1.0 GiB`, `16 MiB`."""
    for unit, factor in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 10 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} B"


class Space:
    """The directory's room.

    Args:
        max_bytes: bound of database, WAL and reserve together.

    Attributes:
        live: bytes of the database in use, the commits since the last `measure` estimated.
        size: bytes on disk of database, WAL and reserve at the last `measure`.
        wal: bytes that went into the WAL since it was last moved into the database, estimated.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._wal_path = directory / f"{DB_NAME}-wal"
        self._reserve = directory / RESERVE_NAME
        self.max_bytes = max_bytes
        self.live = 0
        self.size = 0
        self.wal = 0
        self._file = 0
        self._free_pages = 0

    @property
    def has_reserve(self) -> bool:
        """Whether the reserve is there in full."""
        return _size(self._reserve) >= RESERVE_BYTES

    def wrote(self, jobs: int, payload_bytes: int, removed: int) -> None:
        """A transaction added and removed so many jobs."""
        added = payload_bytes + jobs * ROW_OVERHEAD
        self.live += added + added // 8
        self.wal += added + added // 4 + removed * 64 + 4 * PAGE_BYTES

    def measure(self, store: Store) -> None:
        """Looks at what is really there."""
        pages, self._free_pages = store.pages()
        self._file = pages * PAGE_BYTES
        self.live = self._file - self._free_pages * PAGE_BYTES
        self.size = _size(self.directory / DB_NAME) + self.wal_bytes() + _size(self._reserve)

    def wal_bytes(self) -> int:
        """Bytes of the WAL file."""
        return _size(self._wal_path)

    def lacks(self, payload_bytes: int) -> str | None:
        """Why so many bytes can't be taken within the bound; None when they can."""
        capacity = self.max_bytes - RESERVE_BYTES - WAL_LIMIT
        if self.live + payload_bytes + payload_bytes // 8 <= capacity:
            return None
        used = self.live + RESERVE_BYTES + WAL_LIMIT
        return (
            f"journal full: {human(used)} of {human(self.max_bytes)} (SIDECAR_JOURNAL_MAX_BYTES); "
            "it empties as upstream takes jobs and dead letters are retried or discarded"
        )

    def disk_lacks(self) -> str | None:
        """Why the volume can't take more, after trying to bring the reserve back; None when it can."""
        volume = os.statvfs(self.directory)
        free = volume.f_bavail * volume.f_frsize
        needed = RESERVE_BYTES if self.has_reserve else 2 * RESERVE_BYTES
        if free >= needed:
            try:
                self.restore_reserve()
            except OSError as error:
                return f"disk full: no room for the reserve of {human(RESERVE_BYTES)} ({error.strerror})"
            return None
        return f"disk full: {human(free)} free in {self.directory}, {human(needed)} needed; free some space there"

    def restore_reserve(self) -> None:
        """Makes the reserve, written and synced.

        Raises:
            OSError: there is no room.
        """
        if self.has_reserve:
            return
        descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            else:  # macOS
                for offset in range(0, RESERVE_BYTES, MIB):
                    os.pwrite(descriptor, bytes(MIB), offset)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, 0)
            raise
        finally:
            os.close(descriptor)

    def drop_reserve(self) -> None:
        """Gives the reserve's room to the database."""
        self._reserve.unlink(missing_ok=True)

    def vacuum_due(self, *, empty: bool) -> bool:
        """Whether free pages should go back to the file system: nothing is stored, or far less than the file holds."""
        if self._free_pages < VACUUM_DUE:
            return False
        over = self._file > self.max_bytes - RESERVE_BYTES - WAL_LIMIT
        return empty or over or self._file > 2 * self.live

    def vacuum(self, store: Store) -> None:
        """Gives free pages back: all of them where little is stored, else a few."""
        if self.live <= VACUUM_WHOLE:
            store.write_anew()
            store.checkpoint(truncate=True)
            self.wal = 0
        else:
            store.give_back(VACUUM_PAGES)
            self.wal += 2 * VACUUM_PAGES * PAGE_BYTES


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
