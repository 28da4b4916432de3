"""Whether the journal's path still names what is open, and where its jobs go at the end when it doesn't.

A directory can be moved away and made anew, a volume mounted over it or taken off, its files deleted or replaced. What
is open goes on working, and nobody will ever read it again: `+OK` would promise nothing. So device and inode of what
was opened are compared with what the path names. And a file can be cut to nothing under the process: what is written
behind it then grows a file without a beginning, which SQLite takes for an empty one at the next start.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

from sidecar.journal.lock import Lock
from sidecar.journal.reading import Counts
from sidecar.journal.recovery import NEW_NAME, sync_directory
from sidecar.journal.schema import DB_NAME, WAL_NAME
from sidecar.journal.store import Store
from sidecar.logs import get_logger

LOOK_EVERY = 0.1
"""Seconds between two looks: for so long `+OK` can promise nothing."""

log = get_logger()


class Place:
    """The identity of a directory and of the files in it that are open.

    Attributes:
        lost: why what is written now would be found by nobody; None: it would be.
        saved_in: where a copy of the journal is, after `save`: in its directory, or in another one.
    """

    def __init__(self, directory: Path, lock: Lock) -> None:
        self._directory = directory
        self._held = _of(os.fstat(lock.directory))
        self._files: dict[str, tuple[int, int]] = {}
        self._look_at = 0.0
        self._cut: str | None = None  # it stays: what is written later hides it
        self.lost: str | None = None
        self.saved_in: Path | None = None
        self.remember()

    def remember(self) -> None:
        """The database was just opened: its files are those that the path names."""
        found = {name: _identity(self._directory / name) for name in (DB_NAME, WAL_NAME)}
        self._files = {name: identity for name, identity in found.items() if identity is not None}
        self._cut = None

    def look(self, now: float) -> None:
        """Compares, at most some times a second; 20 microseconds. `now`: monotonic seconds."""
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            self.look_now()

    def look_now(self) -> None:
        """Compares, and says what is new."""
        before, self.lost = self.lost, self._difference()
        if before is None and self.lost is not None:
            log.error("journal_lost", message=f"Jobs are refused: {self.lost}")
        elif before is not None and self.lost is None:
            log.info("journal_found", message="The journal is where it was: jobs are accepted again")

    def _difference(self) -> str | None:
        here = _identity(self._directory)
        if here != self._held:
            return f"{self._directory} {_what(here)} since the start: {_AGAIN}"
        for name, identity in self._files.items():
            there = _identity(self._directory / name)
            if there != identity:
                return f"{self._directory / name} {_what(there)} since the start: {_AGAIN}"
        if WAL_NAME not in self._files and (wal := _identity(self._directory / WAL_NAME)) is not None:
            self._files[WAL_NAME] = wal
        for name, begins in ((DB_NAME, _has_begin), (WAL_NAME, _begins_as_wal)):
            if self._cut is None and not begins(self._directory / name):
                self._cut = f"{self._directory / name} was cut under the running process: {_CUT}"
        return self._cut

    @property
    def elsewhere(self) -> Path | None:
        """Where the jobs are after `save` that the next start on this path won't find."""
        return None if self.saved_in == self._directory else self.saved_in

    def save(self, store: Store, counts: Counts) -> None:
        """At the end of a journal that was lost: what is left goes where it can be found.

        The connection is never closed: SQLite would delete the WAL by its name, which may be another's now.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(store.db))
        if not (counts.jobs or counts.dead):
            return
        left = f"{counts.jobs:,} jobs and {counts.dead:,} dead letters"
        self.saved_in = self._copied(store)
        if self.saved_in is None:
            log.error("journal_left", message=f"{left} are in files that no path names, and could not be copied")
            return
        if self.saved_in == self._directory:
            how = "its files were deleted"
        else:
            how = f"to send them: faktory-sidecar journal send --journal-dir {self.saved_in}"
        message = f"{left} were copied to {self.saved_in}; {how}"
        log.error("journal_saved", message=message, jobs=counts.jobs, dead=counts.dead, directory=str(self.saved_in))

    def _copied(self, store: Store) -> Path | None:
        """Into the directory itself, as its journal, where only files were deleted; else beside it, else where
        temporary files are. None: nowhere.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        beside, temporary = saved_places(self._directory, self._directory.name, stamp)
        ours = _identity(self._directory) == self._held and _identity(self._directory / DB_NAME) is None
        for target in ([self._directory] if ours else []) + [beside, temporary]:
            try:
                target.mkdir(mode=0o700, exist_ok=ours)
                _copy(store, target)
                return target
            except (OSError, sqlite3.Error) as error:
                log.warning("journal_not_saved", message=f"The journal can't be copied to {target}: {error}")
        return None


def saved_places(directory: Path, name: str, stamp: str) -> tuple[Path, Path]:
    """Where a lost journal is copied to: beside it, or else where temporary files are."""
    mark = crc32(os.fsencode(directory.absolute()))  # there are other journals of this name
    temporary = f"faktory-sidecar-{name}-{mark:08x}.saved-{stamp}"
    return directory.with_name(f"{name}.saved-{stamp}"), Path(tempfile.gettempdir()) / temporary


def saved_patterns(directory: Path) -> tuple[Path, Path]:
    """The same for `glob`, whenever it was."""
    return saved_places(directory, glob.escape(directory.name), "*")


_AGAIN = (
    "put the former one back, or restart the sidecar; what was acknowledged still leaves, and what can't is copied "
    "at the stop"
)


_CUT = (
    "what it held is gone; restart the sidecar; what is in memory still leaves, and what can't is copied at the stop, "
    "as far as it can be read"
)
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


def _has_begin(database: Path) -> bool:
    """Whether a database has a first page. It isn't opened: closing it would end the locks that SQLite has on it."""
    try:
        return os.stat(database).st_size > 0
    except OSError:
        return True  # what is missing is another matter


def _begins_as_wal(path: Path) -> bool:
    """Whether a write-ahead log is empty, as behind a checkpoint, or has its header. SQLite keeps no locks on it."""
    try:
        with path.open("rb") as wal:
            return wal.read(4) in (b"", *_WAL_MAGIC)
    except OSError:
        return True


def _copy(store: Store, target: Path) -> None:
    """A whole copy of the database, durable, that takes its name last."""
    new = target / NEW_NAME
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    with closing(sqlite3.connect(new)) as copy:
        store.db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()
    (target / WAL_NAME).unlink(missing_ok=True)
    os.rename(new, target / DB_NAME)
    sync_directory(target)
    sync_directory(target.parent)


def _of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None where there is nothing, or nothing that may be looked at."""
    try:
        return _of(os.stat(path))
    except OSError:
        return None


def _what(there: tuple[int, int] | None) -> str:
    return "was deleted or moved away" if there is None else "was replaced or mounted over"
