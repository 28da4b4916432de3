"""What the journal leans on in its host, asked for by trying it: at each start, and by `check`.

Which SQLite can what depends on its version and on how it was built, and a list of both would be wrong somewhere. So
every kind of statement runs once, on a database in memory, before the first job is taken: a few milliseconds. Of the
directory it is asked whether its locks hold, and whether SQLite can keep its write-ahead log there (`lock`,
`connection`: at each start by opening the journal itself).
"""

from __future__ import annotations

import errno
import platform
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sidecar.errors import StartError
from sidecar.journal.connection import Damaged, connect_to_memory
from sidecar.journal.lock import Lock
from sidecar.journal.schema import LIGHT_JOBS
from sidecar.journal.seal import DeadLetter
from sidecar.journal.store import Addition, Change, Store

_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP})
_REFUSED = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
NEEDS = "SQLite 3.9 or later with threads, JSON functions (always there from 3.38 on), triggers, auto-vacuum and WAL"


def ask_sqlite() -> None:
    """Try all that the journal asks of SQLite.

    Raises:
        StartError: this one can't do it; says which it is and what it lacks.
    """
    try:
        lacking = _lacking()
    except (sqlite3.Error, Damaged) as error:
        lacking = str(error)
    if lacking is not None:
        raise StartError(
            f"this Python's SQLite can't carry the journal: {lacking} "
            f"(SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}); it takes {NEEDS}"
        )


def ask_directory(directory: Path) -> None:
    """Try locks and write-ahead log beside or in a directory that need not exist yet; leaves nothing behind.

    Raises:
        StartError: they don't work there; says what doesn't.
        OSError, sqlite3.Error: nothing can be written there.
    """
    place = next(path for path in (directory, *directory.parents) if path.is_dir())
    with tempfile.TemporaryDirectory(dir=place, prefix=".asking-") as name:
        lock = Lock(Path(name))
        try:
            Store(Path(name)).close()
        finally:
            lock.release(clean=True)


def why(error: OSError | sqlite3.Error) -> str:
    """What is wrong with a journal's directory, and what to do about it."""
    if isinstance(error, OSError):
        reason, denied = error.strerror or str(error), error.errno in _DENIED
        if is_refused_write(error):  # another directory would leave behind what is in this one
            return f"{reason}; free some space there, or raise the quota: until then no job is taken"
    else:
        reason = f"SQLite {sqlite3.sqlite_version}: {error}"
        denied = (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _REFUSED
    if denied:
        return f"{reason}; it must be a directory that this user can write to (SIDECAR_JOURNAL_DIR)"
    return f"{reason}; look at its volume, or use another one (SIDECAR_JOURNAL_DIR)"


def is_refused_write(error: BaseException) -> bool:
    """Whether a volume that is full, or whose quota is, can be the cause."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    code = getattr(error, "sqlite_errorcode", 0) if isinstance(error, sqlite3.Error) else 0
    return code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _lacking() -> str | None:
    """A journal's life in memory; what went wrong where SQLite itself doesn't say so."""
    if sqlite3.threadsafety == 0:
        return "it is built for a single thread"
    jobs = [b'{"jid":"%08d"}' % number for number in range(1, LIGHT_JOBS + 3)]
    with closing(Store(Path(), db=connect_to_memory())) as store:
        if store.db.execute("PRAGMA auto_vacuum").fetchall() != [(2,)]:
            return "it is built without auto-vacuum"
        store.commit(Change([Addition(1, jobs, [7] * len(jobs), 1.0)]))
        store.commit(Change([Addition(len(jobs) + 1, jobs[:1], [7], 1.0)]))
        store.commit(Change(gone=[1, 2, 3, 5], attempts={6: 2}))
        store.commit(Change(letters=[DeadLetter(7, "jid", "reason", 1, jobs[6], 1.0)]))
        store.set_aside([8])
        store.put_back([7], len(jobs) + 2, 1.0)
        store.give_back(1)
        rows, bad, _ = store.page(0, 100, 1 << 20)
        chosen, _, _ = store.rows([4, 5, 6], 1 << 20)
        left = [4, 6, *range(9, len(jobs) + 3)]
        if bad or [row.id for row in rows] != left or [(row.id, row.attempts) for row in chosen] != [(4, 0), (6, 2)]:
            return "it doesn't give back what was stored"
        counts = store.counts()
        if (counts.jobs, counts.dead, counts.damaged) != (len(left), 0, 1):
            return "it doesn't count what is stored"
    return None
