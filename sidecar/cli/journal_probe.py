"""Looking into a journal without opening it as its owner would: nothing is created, recovered or changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sidecar.journal.connection import Damaged
from sidecar.journal.lock import owner_of
from sidecar.journal.reading import read_counts, read_setting
from sidecar.journal.schema import DB_NAME


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal directory holds.

    Args:
        waiting: jobs that are acknowledged and not settled; None where only the next start can tell.
        dead: dead letters; None as above.
        upstream: the one that the jobs are for, None when there is none on record.
        owner: the process that has it open, None when nobody has.
    """

    waiting: int | None
    dead: int | None
    upstream: str | None = None
    owner: str | None = None

    def foreign(self, identity: str) -> str | None:
        """Why a start with upstream `identity` would be refused, None when it would not."""
        if not self.waiting or self.upstream in (None, identity):
            return None
        return (
            f"holds {self.waiting:,} jobs for {self.upstream}, upstream is {identity}; "
            "use another SIDECAR_JOURNAL_DIR or --adopt-journal"
        )


def look(directory: Path) -> Contents:
    """What is in a journal directory, which need not exist.

    Raises:
        OSError: it can't be read.
    """
    database = directory / DB_NAME
    if not database.exists() or database.stat().st_size == 0:
        return Contents(waiting=0, dead=0)
    owner = owner_of(directory)
    wal = directory / (DB_NAME + "-wal")
    if owner is None and wal.exists() and wal.stat().st_size:
        # An unclean stop. Reading the WAL would recover it, which is the next owner's part.
        return Contents(waiting=None, dead=None)
    # Without an owner nothing changes the file, and `immutable` keeps SQLite from leaving files of its own beside it.
    how = "mode=ro" if owner is not None else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database.absolute()))}?{how}", uri=True)) as db:
            counts, upstream = read_counts(db), read_setting(db, "upstream")
    except (sqlite3.Error, Damaged):
        return Contents(waiting=None, dead=None, owner=None if owner is None else str(owner))
    return Contents(counts.jobs, counts.dead, upstream, None if owner is None else str(owner))
