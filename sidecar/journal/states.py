"""The states in which a damaged database can be read: what the whole frames of its write-ahead log make of it.

Where the log is broken there are several: the database up to the break, as SQLite sees it, and the database with
everything behind the break as well, with the broken frames or without them. Which one is to be trusted hangs on where
the break is.

- Within the last commit: the power failed before it was synced, so nobody was told of it, or a bit of it flipped
  later. The state before it is whole; what only the others have is what that commit added.
- Further ahead: all of it was synced, so a part has rotted. The later states know what became of the jobs since; the
  one before the break helps out where they can't be read.

The files stay as they are: a state is read through a directory of its own, with a link to the database and a log made
for it. A start that is cut short begins again with what it had.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sidecar.journal.connection import PAGE_BYTES, connect_to_read
from sidecar.journal.schema import DB_NAME, WAL_NAME
from sidecar.journal.wal import resealed, scan
from sidecar.logs import get_logger

log = get_logger()

SCRATCH_NAME = "journal.reading"
"""The directory in which a state is read; deleted at each start."""
_PAGE_COUNT = slice(28, 32)  # in the header of the file, big-endian


@dataclass(frozen=True, slots=True)
class State:
    """One of the states of a database.

    Attributes:
        wal: the write-ahead log that makes it.
        added_only: it is of use for the jobs that the last commit added alone.
        unread: bytes of the log that are broken.
    """

    wal: bytes
    added_only: bool = False
    unread: int = 0


def states(wal: bytes) -> list[State]:
    """The states that a log makes, the one to be trusted most first."""
    found = scan(wal)
    if found.damage is None:
        return [State(wal)]
    later = [State(resealed(wal, broken=broken), found.unsynced, found.broken * PAGE_BYTES) for broken in (True, False)]
    return [State(wal), *later] if found.unsynced else [*later, State(wal)]


@contextmanager
def readable(directory: Path, state: State, first_page: bytes) -> Iterator[sqlite3.Connection | None]:
    """The directory's database in one of its states, mended so far that SQLite reads it; None when it can't be.

    Args:
        first_page: of an empty journal's file.

    Raises:
        OSError: there is no room for the log.
    """
    scratch = directory / SCRATCH_NAME
    try:
        for mended in (False, True):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(mode=0o700)
            (scratch / WAL_NAME).write_bytes(state.wal)
            if not _lay_out(directory / DB_NAME, scratch / DB_NAME, first_page, bool(state.wal), mended=mended):
                break
            db = _opened(scratch / DB_NAME)
            if db is not None:
                with closing(db):
                    yield db
                return
        yield None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _lay_out(source: Path, target: Path, first_page: bytes, logged: bool, *, mended: bool) -> bool:
    """Makes the database's file for a state; False where there is nothing to read.

    Args:
        logged: there is a write-ahead log, which SQLite would ignore beside an empty database.
        mended: with page 1 of a new journal, which is the same in all of them but for its counters.
    """
    size = source.stat().st_size if source.exists() else 0
    if not size and logged and not mended:
        target.write_bytes(first_page)
    elif not mended and source.exists():
        try:
            os.link(source, target)
        except OSError:  # not every file system has links
            shutil.copyfile(source, target)
    elif mended and size >= 2 * PAGE_BYTES:
        page = bytearray(first_page)
        page[_PAGE_COUNT] = (size // PAGE_BYTES).to_bytes(4, "big")
        shutil.copyfile(source, target)
        with target.open("r+b") as file:
            file.write(page)
    else:
        return False
    return True


def _opened(path: Path) -> sqlite3.Connection | None:
    try:
        db = connect_to_read(path)
    except sqlite3.Error as error:
        log.warning("journal_unreadable", message=f"SQLite can't open the damaged journal: {error}")
        return None
    try:
        db.execute("SELECT count(*) FROM (SELECT id FROM jobs LIMIT 1)").fetchall()
    except sqlite3.Error as error:
        log.warning("journal_unreadable", message=f"SQLite can't read the damaged journal: {error}")
        db.close()
        return None
    return db
