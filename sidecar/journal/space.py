"""How much room there is: the bound of the directory, the volume's free space, and the reserve for a full disk.

On a full disk SQLite can't even delete: a deletion goes to the WAL first. So a preallocated file stands in the
directory. When the disk is full it is unlinked, which makes room for the WAL's contents and for deletions; it comes
back before a job is accepted again.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from sidecar.config import size_text
from sidecar.journal.connection import PAGE_BYTES
from sidecar.journal.schema import DB_NAME, WAL_NAME
from sidecar.journal.store import Store
from sidecar.logs import get_logger

log = get_logger()

MIB = 1024 * 1024
RESERVE_NAME = "reserve"
TRIAL_NAME = "trial"
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
TRY_EVERY = 0.25
"""Seconds between two attempts to bring the reserve back."""
ROW_OVERHEAD = 48
"""Bytes a job takes beside its payload, about: mark, id, cell and page headers."""
EMPTY_BYTES = 64 * 1024
"""A journal without a job, about."""


def bound_of(max_bytes: int) -> int:
    """The journal's bound, in bytes: no more than this process may write into one file."""
    largest = _largest_file()
    if largest >= max_bytes:
        return max_bytes
    log.warning(
        "journal_bound",
        message=f"This process may write no file over {size_text(largest)} (RLIMIT_FSIZE): that is the journal's "
        f"bound, in place of {size_text(max_bytes)}",
    )
    return largest


def _largest_file() -> int:
    """Bytes up to which this process may write into a file."""
    largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return sys.maxsize if largest == resource.RLIM_INFINITY else largest


class Space:
    """The directory's room.

    Everything is asked of the directory that was opened, by its descriptor: what its path names by now may be nothing,
    or another's.

    Args:
        at: the directory's descriptor.
        max_bytes: bound of database, WAL and reserve together.

    Attributes:
        live: bytes of the database in use, the commits since the last `measure` estimated.
        size: bytes on disk of database, WAL and reserve at the last `measure`.
        doubted: a write was refused since there was room for certain.
        wal: bytes that went into the WAL since it was last moved into the database, estimated.
    """

    def __init__(self, directory: Path, at: int, max_bytes: int) -> None:
        self.directory = directory
        self._at = at
        self.max_bytes = max_bytes
        self.live = 0
        self.size = 0
        self.wal = 0
        self._file = 0
        self._free_pages = 0
        self.doubted = False
        self._refused: tuple[float, str] | None = None  # when the reserve was last tried in vain, and why

    @property
    def has_reserve(self) -> bool:
        """Whether the reserve is there in full."""
        return self._size(RESERVE_NAME) >= RESERVE_BYTES

    def file_bound(self) -> str:
        """What is to be said beside a failed write where this process may have become unable to write so far."""
        if (largest := _largest_file()) > self.max_bytes:
            return ""
        return f" (this process may write no file over {size_text(largest)}: RLIMIT_FSIZE)"

    @property
    def _bound(self) -> str:
        """What bounds the journal."""
        return "SIDECAR_JOURNAL_MAX_BYTES" if _largest_file() > self.max_bytes else "RLIMIT_FSIZE of this process"

    def wrote(self, added: int, removed: int) -> None:
        """A transaction added so many bytes (with `ROW_OVERHEAD`) and removed so many jobs."""
        self.live += added + added // 8
        self.wal += added + added // 4 + removed * 64 + 4 * PAGE_BYTES

    def measure(self, store: Store) -> None:
        """Looks at what is really there."""
        pages, self._free_pages = store.pages()
        self._file = pages * PAGE_BYTES
        self.live = self._file - self._free_pages * PAGE_BYTES
        self.size = self._size(DB_NAME) + self.wal_bytes() + self._size(RESERVE_NAME)

    def wal_bytes(self) -> int:
        """Bytes of the WAL file."""
        return self._size(WAL_NAME)

    def lacks(self, size: int) -> str | None:
        """Why so many bytes (with `ROW_OVERHEAD`) can't be taken within the bound; None when they can."""
        if self.live + _needed(size) <= self.max_bytes:
            return None
        used = self.live + RESERVE_BYTES + WAL_LIMIT
        return (
            f"journal full: {size_text(used)} of {size_text(self.max_bytes)} ({self._bound}); "
            "it empties as upstream takes jobs and dead letters are retried or discarded"
        )

    def never_fits(self, size: int) -> str | None:
        """Why so many bytes can't be taken at once however empty the journal is; None when they can."""
        if _needed(size) + EMPTY_BYTES <= self.max_bytes:
            return None
        return (
            f"so many jobs at once need {size_text(_needed(size))} of room in the journal, which may take "
            f"{size_text(self.max_bytes)}; send fewer at once, or raise {self._bound}"
        )

    def volume_lacks(self, size: int) -> str | None:
        """Why the volume can't take so many bytes in one transaction; None when it can."""
        volume = os.statvfs(self._at)
        free = volume.f_bavail * volume.f_frsize
        needed = _needed(size) - (RESERVE_BYTES if self.has_reserve else 0)
        if free >= needed:
            return None
        return self._too_full(free, needed)

    def _too_full(self, free: int, needed: int) -> str:
        there = f"{size_text(free)} free in {self.directory}"
        return f"disk full: {there}, {size_text(needed)} needed; free some space there"

    def disk_lacks(self) -> str | None:
        """Why the volume can't take more, after trying to bring the reserve back; None when it can.

        The trial decides: a quota, or a file system that doesn't know its own room, shows in no figure. But where the
        figures show too little, nothing is tried.
        """
        volume = os.statvfs(self._at)
        free = volume.f_bavail * volume.f_frsize
        needed = RESERVE_BYTES if self.has_reserve else 2 * RESERVE_BYTES
        if free < needed and volume.f_blocks:
            return self._too_full(free, needed)
        if self.has_reserve and not self.doubted:
            return None
        now = time.monotonic()
        if self._refused is not None and now < self._refused[0] + TRY_EVERY:
            return self._refused[1]
        lacking = self._try_room()
        self._refused = (now, lacking) if lacking is not None else None
        return lacking

    def _try_room(self) -> str | None:
        """Brings the reserve back; after a refused write there must be as much room beside it, or it were full again
        in a moment."""
        try:
            if self.doubted:
                self._make(TRIAL_NAME)
            self.restore_reserve()
        except OSError as error:
            if self.doubted:
                self.drop_reserve()  # deletions need its room
            return (
                f"disk full: no room for {size_text(RESERVE_BYTES)} in {self.directory} "
                f"({error.strerror}); free some space there, or raise the quota"
            )
        finally:
            self._remove(TRIAL_NAME)
        self.doubted = False
        return None

    def restore_reserve(self) -> None:
        """Makes the reserve, written and synced.

        Raises:
            OSError: there is no room.
        """
        if self.has_reserve:
            return
        self._make(RESERVE_NAME)

    def drop_reserve(self) -> None:
        """Gives the reserve's room to the database."""
        self._remove(RESERVE_NAME)

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

    def _make(self, name: str) -> None:
        """Makes a file of the reserve's size, written and synced; an empty one where there is no room.

        Raises:
            OSError: there is none.
        """
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._at)
        try:
            _allocate(descriptor, RESERVE_BYTES)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, 0)
            raise
        finally:
            os.close(descriptor)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._at)

    def _size(self, name: str) -> int:
        try:
            return os.stat(name, dir_fd=self._at).st_size
        except FileNotFoundError:
            return 0


def _needed(size: int) -> int:
    """Bytes on disk while a transaction adds `size`: its rows, the WAL that they pass through, and the reserve."""
    return size + size // 8 + max(WAL_LIMIT, size + size // 4 + CHECKPOINT_DUE) + RESERVE_BYTES


def _allocate(descriptor: int, size: int) -> None:
    """Gives a file room on the disk: the file system's own way where it has one, else by writing."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
    for offset in range(0, size, MIB):  # macOS; musl on file systems without fallocate
        if os.pwrite(descriptor, bytes(MIB), offset) < MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
