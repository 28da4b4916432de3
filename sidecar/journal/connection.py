"""Connections to the database: their settings, their transactions, and what can be wrong with the file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.errors import StartError

PAGE_BYTES = 4096
BUSY_SECONDS = 5.0
"""A `journal` command of another process holds the write lock for milliseconds."""


_UNDONE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_TOOBIG})


class Damaged(Exception):
    """The file is not a sound journal: `rebuild` reads out of it what can be read."""


class NewerFormat(Exception):
    """The file was written by a later version of the program; `args[0]` is its format."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is broken, not the disk or the request."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_undone(error: sqlite3.Error) -> bool:
    """Whether nothing of the failed transaction can come back: the mark that ends it was never written.

    SQLite reports a refused write as FULL (ENOSPC) or IOERR_WRITE (EDQUOT, EFBIG, EROFS, EIO…), and the mark comes
    last. After any other I/O error, a failed sync above all, it may stand in the WAL.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    return code == sqlite3.SQLITE_IOERR_WRITE or code & 0xFF in _UNDONE


def connect(path: Path) -> sqlite3.Connection:
    """A connection to an existing file with the journal's settings, for one thread at a time, whichever.

    Raises:
        StartError: SQLite can't write there, or can't keep a write-ahead log.
        sqlite3.Error: it can't be opened.
    """
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            raise StartError(f"{file}: this user can't write to it; mend its owner or its mode (SIDECAR_JOURNAL_DIR)")
    db = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_SECONDS,
    )
    try:
        mode = _set_up(db)
        if mode != "wal":
            raise StartError(
                f"SQLite can't keep a write-ahead log in {path.parent} (it says: {mode}); "
                "the journal needs a local disk (SIDECAR_JOURNAL_DIR)"
            )
    except BaseException:
        db.close()
        raise
    return db


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection to what is left of a damaged journal, which leaves its file as it is.

    Raises:
        sqlite3.Error: it can't be opened.
    """
    db = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA journal_mode = WAL").fetchall()  # ahead of all else: the log may be the better half
    except BaseException:
        db.close()
        raise
    return db


def connect_to_memory() -> sqlite3.Connection:
    """A database that is nowhere, to try things on."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    _set_up(db)
    return db


def _set_up(db: sqlite3.Connection) -> str:
    """Gives a connection its settings; the journal mode that it really has."""
    db.execute("PRAGMA temp_store = MEMORY")  # a read-only root file system has no place for temporary files
    if db.execute("PRAGMA auto_vacuum").fetchall() != [(2,)]:  # setting it writes, and a volume may be full
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # ahead of what makes the file
    answers = [
        db.execute(f"PRAGMA {pragma}").fetchall()
        for pragma in (
            "journal_mode = WAL",  # before anything else is read: of a damaged file the WAL may be the better half
            "synchronous = FULL",
            "fullfsync = ON",  # macOS: fsync alone doesn't reach the medium there
            "checkpoint_fullfsync = ON",
            "secure_delete = OFF",  # Debian's default overwrites deleted rows: twice the writes
            "wal_autocheckpoint = 0",  # done after the replies instead of within a commit
            "cache_size = -8192",
        )
    ]
    return str(answers[0][0][0])


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """One write transaction of several statements: all of them or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
