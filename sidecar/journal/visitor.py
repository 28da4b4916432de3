"""The journal as another process sees it: beside a running sidecar, or in a directory that nobody owns.

Reading never changes a file: the connection is read-only, and no statement stays open longer than a page, so that the
owner's WAL can be cut back. Putting dead letters back and discarding them is one short transaction; a running sidecar
notices it, and only it makes jobs of the letters, because only it gives out ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sidecar.errors import StartError
from sidecar.journal import schema
from sidecar.journal.connection import BUSY_SECONDS, Damaged, connect, transaction
from sidecar.journal.host import ask_sqlite
from sidecar.journal.lock import Lock, Owner, owner_of
from sidecar.journal.reading import Counts, cut_by_bytes, read_counts, read_setting, sound_letter
from sidecar.journal.recovery import open_store
from sidecar.journal.schema import DB_NAME
from sidecar.journal.seal import DeadLetter, Row, opened
from sidecar.journal.space import RESERVE_NAME

PAGE = 200
"""Rows read by one statement."""
PAGE_BYTES = 4 * 1024 * 1024
"""Their payload, in bytes, but for a first one that is larger."""

_KEPT = ("jobs", "dead", "damaged")
_LETTER = "id, jid, reason, attempts, payload, at, crc"


class Visitor:
    """Reads a journal; use as a context manager.

    Attributes:
        owner: the running sidecar, None when there is none.
    """

    def __init__(self, directory: Path) -> None:
        """Raises:
        StartError: there is no journal there, or it can't be read.
        """
        self.directory = directory
        database = directory / DB_NAME
        if not database.exists():
            raise StartError(f"there is no journal in {directory}")
        self.owner: Owner | None = owner_of(directory)
        wal = directory / f"{DB_NAME}-wal"
        # without an owner and a WAL nothing changes the file, and SQLite needs no files of its own beside it
        how = "" if self.owner is not None or wal.exists() else "&immutable=1"
        address = f"file:{quote(str(database.absolute()))}?mode=ro{how}"
        self._db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_SECONDS)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, Damaged) as error:
            raise StartError(
                f"journal {self.directory} can't be read: {error}; the next start of the sidecar mends a damaged one"
            ) from error

    def counts(self) -> Counts:
        """How many jobs, dead letters and damaged rows there are.

        Raises:
            StartError: it can't be read; so do the other methods.
        """
        with self._readable():
            return read_counts(self._db)

    def is_empty(self) -> bool:
        """Whether there is nothing at all: no job, no dead letter, no damaged row, whatever the counts say."""
        with self._readable():
            tables = (self._db.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchall() for name in _KEPT)  # noqa: S608
            return not any(tables)

    def upstream(self) -> str | None:
        """The server that the jobs are for."""
        with self._readable():
            return read_setting(self._db, "upstream")

    def size(self) -> int:
        """Bytes on disk of database, WAL and reserve."""
        paths = [self.directory / name for name in (DB_NAME, f"{DB_NAME}-wal", RESERVE_NAME)]
        return sum(path.stat().st_size for path in paths if path.exists())

    def flagged(self) -> int:
        """Dead letters that are to be put back."""
        with self._readable():
            return int(self._db.execute("SELECT count(*) FROM requeue").fetchall()[0][0])

    def jobs(self, containing: bytes = b"") -> Iterator[Row | int]:
        """All jobs whose payload contains these bytes, in order; of a damaged one only the id."""
        columns = "row.id, mark, payload, ifnull(note.attempts, 0)"
        source = "jobs AS row LEFT JOIN attempts AS note ON note.id = row.id"
        where = "(length(?3) = 0 OR instr(payload, ?3))"
        for number, mark, payload, attempts in self._pages(columns, source, where, containing):
            sound = isinstance(mark, bytes) and isinstance(payload, bytes)
            whence = opened(number, mark, payload) if sound else None
            yield number if whence is None else Row(number, whence[0], attempts, payload, whence[1])

    def letters(self, jid: str | None = None) -> Iterator[DeadLetter | int]:
        """All dead letters, or those of a jid, in order; of a damaged one only the id."""
        for row in self._pages(_LETTER, "dead AS row", "(?3 IS NULL OR jid = ?3)", jid):
            yield sound_letter(row) or int(row[0])

    def _pages(self, columns: str, source: str, where: str, wanted: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a table `row` in order, in pages that are cut by bytes before their payloads are loaded."""
        sizes = f"SELECT row.id, ifnull(length(payload), 0) FROM {source} WHERE row.id > ?1 ORDER BY row.id LIMIT ?2"  # noqa: S608 - constants
        rows = f"SELECT {columns} FROM {source} WHERE row.id > ?1 AND row.id <= ?2 AND {where} ORDER BY row.id"  # noqa: S608 - constants
        after = 0
        while True:
            with self._readable():
                found = cut_by_bytes(self._db.execute(sizes, (after, PAGE)).fetchall(), PAGE_BYTES)
                page = self._db.execute(rows, (after, found[-1][0], wanted)).fetchall() if found else []
            if not found:
                return
            yield from page
            after = found[-1][0]

    def quick_check(self) -> list[str]:
        """What SQLite finds wrong with the structure; takes long, and the owner's WAL grows meanwhile."""
        with self._readable():
            found = [str(row[0]) for row in self._db.execute("PRAGMA quick_check").fetchall()]
        return [] if found == ["ok"] else found


def put_back(directory: Path, ids: Sequence[int]) -> int:
    """Flags dead letters: the owner, or the next start, makes jobs of them again.

    Returns:
        how many there were.

    Raises:
        StartError: the journal can't be written.
    """
    with _writing(directory) as db:
        found = 0
        for number in ids:
            sql = "INSERT OR IGNORE INTO requeue SELECT id FROM dead WHERE id = ?"
            found += db.execute(sql, (number,)).rowcount
        return found


def discard(directory: Path, ids: Sequence[int]) -> int:
    """Deletes dead letters for good.

    Returns:
        how many there were.

    Raises:
        StartError: the journal can't be written.
    """
    with _writing(directory) as db:
        found = 0
        for number in ids:
            found += db.execute("DELETE FROM dead WHERE id = ?", (number,)).rowcount
            db.execute("DELETE FROM requeue WHERE id = ?", (number,))
        db.execute(schema.counts_sql(dead="?1"), (-found,))
        return found


@contextmanager
def _writing(directory: Path) -> Iterator[sqlite3.Connection]:
    """One transaction: beside the owner, or as the owner for that long, with all that belongs to a start."""
    if owner_of(directory) is not None:
        try:
            db = connect(directory / DB_NAME)
            try:
                with transaction(db):
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise StartError(f"journal {directory} can't be written: {error}") from error
        return
    ask_sqlite()
    try:
        lock = Lock(directory)
    except OSError as error:
        raise StartError(f"journal {directory} can't be written: {error.strerror}") from error
    clean = False
    try:
        store, _ = open_store(directory, unclean=lock.unclean, prepare=lambda store: None)
        try:
            with transaction(store.db):
                yield store.db
            clean = True
        finally:
            store.close()
    except (sqlite3.Error, OSError) as error:
        raise StartError(f"journal {directory} can't be written: {error}") from error
    finally:
        lock.release(clean=clean and not lock.replaced)  # the next start is to know
