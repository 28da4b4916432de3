"""Reading out of a damaged database what can be read, with nothing but SQLite and the rows' own seals."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.journal.connection import Damaged
from sidecar.journal.reading import Counts, cut_by_bytes, read_counts, read_setting, sound_letter
from sidecar.journal.schema import DB_NAME, WAL_NAME
from sidecar.journal.seal import opened, seal_attempts
from sidecar.journal.states import readable, states
from sidecar.journal.store import Store
from sidecar.logs import get_logger

log = get_logger()

_ROWS = 256
"""Rows read at once."""
_BYTES = 4 * 1024 * 1024
"""Their payload, in bytes, but for a first one that is larger."""
_LAST = 1 << 62
_DAMAGED = "damaged (id, found, mark, payload)"
_Raw = tuple[Any, ...]
"""A row as it stands in a damaged file, whatever its types."""


@dataclass(slots=True)
class Salvaged:
    """What was read.

    Attributes:
        damaged_before: rows that were set aside already.
        earlier: of the jobs, those that only an earlier state of the database has: they may be delivered.
        unknown_bytes: how much of the old files may hold something that wasn't read.
        read: there was a state that could be read.
        gaps: places, or whole states, that could not.
        seen: hashes of damaged rows, so that each is set aside once.
    """

    jobs: int = 0
    dead: int = 0
    damaged: int = 0
    damaged_before: int = 0
    unknown_bytes: int = 0
    last_id: int = 0
    bytes: int = 0
    earlier: int = 0
    read: bool = False
    gaps: int = 0
    seen: set[int] = field(default_factory=set)


def carry_over(directory: Path, new: Store, first_page: bytes) -> Salvaged:
    """Copies all readable rows of the directory's database into an empty one.

    Args:
        first_page: of an empty journal's file.

    Raises:
        OSError, sqlite3.Error: the new database couldn't be written.
    """
    path, wal = directory / DB_NAME, directory / WAL_NAME
    content = wal.read_bytes() if wal.exists() else b""
    salvaged = Salvaged()
    for state in states(content):
        gaps = salvaged.gaps
        with readable(directory, state, first_page) as db:
            if db is None:
                salvaged.gaps += 1
            elif not salvaged.read:
                _carry_first(db, new, salvaged)
            elif state.added_only:
                _carry_jobs(db, new, salvaged, after=salvaged.last_id)
            elif salvaged.gaps:
                _carry_earlier(db, new, salvaged)
        if state.added_only and not gaps:  # the state before is whole, so no more than that commit is unknown
            salvaged.gaps, salvaged.unknown_bytes = 0, state.unread
    new.set_counts(Counts(salvaged.jobs, salvaged.dead, salvaged.damaged + salvaged.damaged_before, salvaged.last_id))
    if salvaged.gaps:
        size = len(content) + (path.stat().st_size if path.exists() else 0)
        salvaged.unknown_bytes = max(0, size - salvaged.bytes)
    return salvaged


def _carry_first(db: sqlite3.Connection, new: Store, salvaged: Salvaged) -> None:
    """Copies what the state that is trusted most holds."""
    salvaged.read, the_latest = True, not salvaged.gaps
    counts = _counts(db)
    _carry_jobs(db, new, salvaged)
    if not the_latest:
        salvaged.earlier = salvaged.jobs
    _carry_letters(db, new, salvaged)
    _carry_small(db, new, salvaged)
    if counts is None or salvaged.jobs + salvaged.damaged < counts.jobs or salvaged.dead < counts.dead:
        salvaged.gaps += 1
    if counts is not None:
        salvaged.last_id = max(salvaged.last_id, counts.last_id)


def _carry_earlier(db: sqlite3.Connection, new: Store, salvaged: Salvaged) -> None:
    """Adds what an earlier state has for the gaps: some of it may have been delivered since."""
    before = salvaged.jobs
    _carry_jobs(db, new, salvaged)
    _carry_letters(db, new, salvaged)
    salvaged.jobs -= new.drop_buried()
    salvaged.earlier += max(0, salvaged.jobs - before)


def _counts(db: sqlite3.Connection) -> Counts | None:
    try:
        return read_counts(db)
    except (Damaged, sqlite3.Error) as error:
        log.warning("journal_unreadable", message=f"The damaged journal's counts can't be read: {error}")
        return None


def _rows(
    db: sqlite3.Connection,
    table: str,
    columns: str,
    sound: Callable[[_Raw], bool],
    salvaged: Salvaged,
    *,
    key: str = "id",
    after: int = 0,
) -> Iterator[tuple[list[_Raw], list[_Raw]]]:
    """All readable rows of a table in pages, the sound ones and the others, stepping over what can't be read.

    Rows come in the order in which they stand in the file; the ids of damaged ones say nothing.
    """
    sized = "payload" in columns
    size = "ifnull(length(payload), 0)" if sized else "0"
    rest = f"FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?"
    sql, sizes = f"SELECT {columns} {rest}", f"SELECT {key}, {size} {rest}"
    limit, step, seen = _ROWS, 1, salvaged.seen

    def readable(start: int, count: int = 1) -> list[_Raw] | None:
        try:
            if sized and count > 1:
                count = max(1, len(cut_by_bytes(db.execute(sizes, (start, count)).fetchall(), _BYTES)))
            return db.execute(sql, (start, count)).fetchall()
        except (sqlite3.Error, MemoryError):
            return None

    while after < _LAST:
        rows = readable(after, limit)
        if rows is None and limit > 1:
            limit = max(1, limit // 4)
            continue
        if rows is None:
            salvaged.gaps += 1
            after, limit = _next_readable(after, readable), _ROWS
            continue
        if not rows:
            return
        good = [row for row in rows if sound(row)]
        bad = [row for row in rows if hash(row) not in seen and not sound(row)]
        seen.update(map(hash, bad))
        yield good, bad
        last = max((row[0] for row in good), default=0)
        step = 1 if last > after else step * 2
        after = max(last, after + step - 1, after + 1)
        limit = min(_ROWS, limit * 2)


def _next_readable(after: int, readable: Callable[[int], object]) -> int:
    """The least id from which on a row can be read, about: steps of doubling length, then halved."""
    step = 1
    while readable(after + step) is None:
        step *= 2
        if after + step >= _LAST:
            return _LAST
    low, high = after + step // 2, after + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if readable(middle) is None else (low, middle)
    return high


def _sound_job(row: _Raw) -> bool:
    number, mark, payload = row
    whole = isinstance(number, int) and isinstance(mark, bytes) and isinstance(payload, bytes)
    return whole and opened(number, mark, payload) is not None


def _carry_jobs(db: sqlite3.Connection, new: Store, salvaged: Salvaged, *, after: int = 0) -> None:
    for good, bad in _rows(db, "jobs", "id, mark, payload", _sound_job, salvaged, after=after):
        salvaged.jobs += new.add_raw("jobs", good)
        salvaged.damaged += new.add_raw(_DAMAGED, [(row[0], time.time(), row[1], row[2]) for row in bad])
        salvaged.bytes += sum(len(row[2]) for row in good)
        salvaged.last_id = max([salvaged.last_id, *(row[0] for row in good)])


def _carry_letters(db: sqlite3.Connection, new: Store, salvaged: Salvaged) -> None:
    columns = "id, jid, reason, attempts, payload, at, crc"
    for good, bad in _rows(db, "dead", columns, lambda row: sound_letter(row) is not None, salvaged):
        salvaged.dead += new.add_raw("dead", [(*row[:4], row[5], row[6], row[4]) for row in good])
        salvaged.damaged += new.add_raw(_DAMAGED, [(row[0], time.time(), None, row[4]) for row in bad])
        salvaged.bytes += sum(len(row[4]) for row in good)
        salvaged.last_id = max([salvaged.last_id, *(row[0] for row in good)])


def _sound_attempts(row: _Raw) -> bool:
    number, attempts, crc = row
    return isinstance(number, int) and isinstance(attempts, int) and crc == seal_attempts(number, attempts)


def _carry_small(db: sqlite3.Connection, new: Store, salvaged: Salvaged) -> None:
    for good, _ in _rows(db, "attempts", "id, attempts, crc", _sound_attempts, salvaged):
        new.add_raw("attempts", good)
    for good, _ in _rows(db, "requeue", "id", lambda row: 0 < row[0] <= salvaged.last_id, salvaged):
        new.add_raw("requeue", good)
    columns = "number, id, found, mark, payload"
    for good, _ in _rows(db, "damaged", columns, lambda row: isinstance(row[2], float), salvaged, key="number"):
        salvaged.damaged_before += new.add_raw(_DAMAGED, [row[1:] for row in good])
    try:
        upstream = read_setting(db, "upstream")
    except sqlite3.Error as error:
        log.warning("journal_unreadable", message=f"The upstream of the damaged journal can't be read: {error}")
        return
    if upstream is not None:
        new.set_setting("upstream", upstream)
