"""Reading the database: counts, settings, jobs and dead letters, each proven by its seal."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from sidecar.journal import blobs, schema
from sidecar.journal.connection import Damaged
from sidecar.journal.seal import DeadLetter, Row, opened, seal_attempts, seal_letter, seal_text

LAST = 1 << 62
"""Above every id."""


class Counts(msgspec.Struct, frozen=True, gc=False):
    """What the journal holds, by its own row of counts."""

    jobs: int = 0
    dead: int = 0
    damaged: int = 0
    last_id: int = 0


def read_setting(db: sqlite3.Connection, key: str) -> str | None:
    """A recorded setting; None when there is none, or a damaged one."""
    found = db.execute("SELECT value, crc FROM meta WHERE key = ?", (key,)).fetchall()
    if not found or not isinstance(found[0][0], str) or found[0][1] != seal_text(key, found[0][0]):
        return None
    return found[0][0]


def read_counts(db: sqlite3.Connection) -> Counts:
    """The row of counts.

    Raises:
        Damaged: it is not what was written.
    """
    found = db.execute(schema.PROVEN_COUNTS).fetchall()
    whole = len(found) == 1 and all(isinstance(number, int) for number in found[0])
    if not whole or found[0][4] != 1 or found[0][3] > schema.MOST_ID:
        raise Damaged("its row of counts is wrong")
    return Counts(*found[0][:4])


def page(db: sqlite3.Connection, after: int, limit: int, max_bytes: int) -> tuple[list[Row], list[int], int]:
    """Stored jobs with an id above `after`, in order, at most `limit` and about `max_bytes`, one at least.

    Returns:
        the sound ones, the ids of the damaged ones, and the last id that was looked at (`after`: none is left).

    Raises:
        Damaged: more than a row here and there is wrong.
    """
    return _page(db, after, LAST, limit, max_bytes)


def chosen(db: sqlite3.Connection, ids: Sequence[int], max_bytes: int) -> tuple[list[Row], list[int], int]:
    """The first of these jobs, as far as they are stored, about `max_bytes` of them, one at least.

    Args:
        ids: rising.

    Returns:
        the sound ones, the ids of the damaged ones, and how many of `ids` were looked at.
    """
    if ids[-1] - ids[0] == len(ids) - 1:  # neighbours, as nearly always
        rows, bad, last = _page(db, ids[0] - 1, ids[-1], len(ids), max_bytes)
        return rows, bad, bisect_right(ids, last) if rows or bad else len(ids)
    listed, looked = str(list(ids)), len(ids)
    count, size, last = db.execute(schema.CHOSEN_REACH, (listed, looked)).fetchall()[0]
    if size > max_bytes:
        count, last = _cut_off(db, schema.CHOSEN_SIZES, (listed, looked), max_bytes)
        looked = bisect_right(ids, last)
        listed = str(list(ids[:looked]))
    if count == 1:
        return *_one_by_one(db, [last]), looked
    return *_cut(db, db.execute(schema.CHOSEN, (listed,)).fetchall()[0], count), looked


def _page(db: sqlite3.Connection, after: int, to: int, limit: int, max_bytes: int) -> tuple[list[Row], list[int], int]:
    """See `page`; no id above `to`."""
    count, size, last = db.execute(schema.PAGE_REACH, (after, to, limit)).fetchall()[0]
    if not count:
        return [], [], after
    if size > max_bytes:
        count, last = _cut_off(db, schema.PAGE_SIZES, (after, to, limit), max_bytes)
    if count == 1:
        return *_one_by_one(db, [last]), last
    return *_cut(db, db.execute(schema.PAGE, (after, last)).fetchall()[0], count, after), last


def cut_by_bytes(sizes: Iterable[tuple[int, int]], max_bytes: int) -> list[tuple[int, int]]:
    """The first of these ids and their sizes that are no larger than `max_bytes` together; one at least."""
    total = 0
    kept: list[tuple[int, int]] = []
    for number, size in sizes:
        total += size
        if kept and total > max_bytes:
            break
        kept.append((number, size))
    return kept


def _cut_off(db: sqlite3.Connection, sql: str, parameters: Sequence[object], max_bytes: int) -> tuple[int, int]:
    """How many of the jobs that a query finds there is room for, and the last of them; their payloads aren't loaded."""
    kept = cut_by_bytes(db.execute(sql, parameters).fetchall(), max_bytes)
    return len(kept), kept[-1][0]


def numbers(db: sqlite3.Connection, sql: str, parameters: Sequence[object]) -> list[int]:
    """The ids that a query finds, in one step of the virtual machine."""
    joined = db.execute(f"SELECT group_concat(id) FROM ({sql})", parameters).fetchall()[0][0]  # noqa: S608 - constants
    return [] if joined is None else _numbers(joined)


def _cut(
    db: sqlite3.Connection, joined: tuple[str | None, str, str, str, bytes, str], count: int, after: int = 0
) -> tuple[list[Row], list[int]]:
    """The rows of a page that is to have `count` of them, all above `after`."""
    numbers = [] if joined[0] is None else _numbers(joined[0])
    if len(numbers) != count:
        raise Damaged("its jobs can't be found again")
    if not numbers:
        return [], []
    if numbers[0] <= after or numbers != sorted(set(numbers)):
        raise Damaged("its jobs are out of order")
    if None in joined:
        return _one_by_one(db, numbers)
    marks, sizes = _numbers(joined[1]), _numbers(joined[2])
    marked = bytes.fromhex(joined[3])
    if not len(numbers) == len(marks) == len(sizes) or sum(sizes) != len(joined[4]) or sum(marks) != len(marked):
        return _one_by_one(db, numbers)  # a damaged row has a NULL where a value was
    rows: list[Row] = []
    bad: list[int] = []
    here = there = 0
    for number, width, size, tries in zip(numbers, marks, sizes, joined[5].split(","), strict=True):
        payload = joined[4][there : there + size]
        whence = opened(number, marked[here : here + width], payload)
        here += width
        there += size
        if whence is None:
            bad.append(number)
        else:
            rows.append(Row(number, whence[0], _attempts(number, tries), payload, whence[1]))
    return rows, bad


def _one_by_one(db: sqlite3.Connection, numbers: Sequence[int]) -> tuple[list[Row], list[int]]:
    rows: list[Row] = []
    bad: list[int] = []
    for number in numbers:
        found = db.execute(schema.ONE, (number,)).fetchall()
        mark, is_blob, tries = found[0] if found else (None, False, "")
        payload = blobs.read(db, "jobs", number) if is_blob else b""
        whence = opened(number, mark, payload) if is_blob and isinstance(mark, bytes) else None
        if whence is None:
            bad.append(number)
        else:
            rows.append(Row(number, whence[0], _attempts(number, tries), payload, whence[1]))
    return rows, bad


def sound_letter(row: Sequence[object]) -> DeadLetter | None:
    """The dead letter of a row `id, jid, reason, attempts, payload, at, crc`; None when its seal doesn't fit."""
    number, jid, reason, attempts, payload, at, crc = row
    if not (isinstance(number, int) and isinstance(jid, str) and isinstance(reason, str) and isinstance(attempts, int)):
        return None
    if not (isinstance(payload, bytes) and isinstance(at, float)):
        return None
    letter = DeadLetter(number, jid, reason, attempts, payload, at)
    return letter if crc == seal_letter(letter) else None


def _numbers(joined: str) -> list[int]:
    return [int(text) for text in joined.split(",")]


def _attempts(number: int, said: str) -> int:
    """Attempts from `attempts:crc`; 0 where nothing is noted, or the note is damaged."""
    if not said:
        return 0
    tries, _, crc = said.partition(":")
    try:
        return int(tries) if int(crc) == seal_attempts(number, int(tries)) else 0
    except ValueError:
        return 0
