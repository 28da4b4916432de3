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
from sidecar.journal.schema import DB_NAME, FLAGGED


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal directory holds.

    Args:
        waiting: jobs that are acknowledged and not settled; None where only the next start can tell.
        dead: dead letters; None as above.
        upstream: the one that the jobs are for, None when there is none on record.
        owner: the process that has it open, None when nobody has.
        flagged: dead letters that are to be sent again.
        damaged: rows that were set aside.
    """

    waiting: int | None
    dead: int | None
    upstream: str | None = None
    owner: str | None = None
    flagged: int = 0
    damaged: int = 0

    @property
    def nothing(self) -> bool:
        """Whether there is certainly nothing in it, by its counts."""
        return self.waiting == 0 and self.dead == 0 and not self.damaged

    @property
    def to_send(self) -> bool:
        """Whether a start would send something, or may: what an unclean stop or damage hides, only it can tell."""
        return self.waiting is None or self.waiting + self.flagged > 0

    def foreign(self, identity: str) -> str | None:
        """Why a start with upstream `identity` would be refused, None when it would not."""
        jobs = (self.waiting or 0) + self.flagged
        if not jobs or self.upstream in (None, identity):
            return None
        return (
            f"holds {jobs:,} jobs for {self.upstream}, upstream is {identity}; "
            "use another SIDECAR_JOURNAL_DIR or --adopt-journal"
        )

    def left(self, directory: Path, identity: str | None) -> str | None:
        """What is said of it as of a directory that a `run` left beside that of upstream `identity`; None: nothing."""
        if self.owner is not None:
            return f"open now: {self.owner}"
        if self.waiting is None:
            return "what a run left; the next run or serve looks what it is, and sends it"
        said: list[str] = []
        foreign = identity is not None and self.upstream not in (None, identity)
        if self.waiting + self.flagged:
            what = f"{self.waiting:,} jobs" + (f", {self.flagged:,} dead letters to be sent again" * bool(self.flagged))
            fate = f"for {self.upstream}: it is not sent to {identity}" if foreign else "the next run or serve sends it"
            said.append(f"what a run left, {what}; {fate}")
        if self.dead:
            said.append(f"{self.dead:,} dead letters: faktory-sidecar journal dead ls --journal-dir {directory}")
        return "; ".join(said) or None

    def saved(self, directory: Path) -> str | None:
        """What is said of it as of a copy that was saved of a lost journal; None: nothing."""
        if self.nothing:
            return None
        what = "jobs" if self.waiting is None else f"{self.waiting:,} jobs and {self.dead:,} dead letters"
        how = f"to send them: faktory-sidecar journal send --journal-dir {directory}; then delete it"
        return f"{what} of a journal whose files were lost; {how}"


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
    said = None if owner is None else str(owner)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database.absolute()))}?{how}", uri=True)) as db:
            counts, upstream = read_counts(db), read_setting(db, "upstream")
            flagged = int(db.execute(FLAGGED).fetchall()[0][0])
    except (sqlite3.Error, Damaged):
        return Contents(waiting=None, dead=None, owner=said)
    return Contents(counts.jobs, counts.dead, upstream, said, flagged, counts.damaged)
