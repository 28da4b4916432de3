"""What is asked of the database between two commits, and what is done where an answer fails for its own sake.

A question that fails because of what it asks, or for lack of memory, says nothing about the disk: it is asked again for
less, and what can't be read even by itself is set aside. So no row, whatever is in it, keeps others from being read.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from sidecar.journal.connection import Damaged
from sidecar.journal.seal import Row
from sidecar.journal.store import Store
from sidecar.logs import get_logger

log = get_logger()

RETRY_PAGE = 100
"""Flagged dead letters that are put back in one transaction."""
RETRY_BYTES = 4 * 1024 * 1024
"""Their payload, in bytes, but for a first one that is larger."""
SMALLER = 8
"""By how much a question that failed is asked for less."""
_OWN = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_ABORT,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
    }
)


def blames_the_disk(error: BaseException) -> bool:
    """Whether an error tells of the disk or the file, not of what was asked."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)  # those of the module itself have none
        return code is not None and code & 0xFF not in _OWN
    return isinstance(error, OSError | Damaged)


def page(store: Store, after: int, limit: int, max_bytes: int) -> tuple[list[Row], list[int], int]:
    """See `reading.page`; the damaged ones are set aside."""
    try:
        rows, bad, last = store.page(after, limit, max_bytes)
    except Exception as error:
        if blames_the_disk(error):
            raise
        if limit > 1:
            return page(store, after, max(1, limit // SMALLER), max_bytes // SMALLER)
        bad = store.ids(after, 1 << 62, 1)
        rows, last = [], bad[0] if bad else after
        _say_unreadable(bad, error)
    return rows, _set_aside(store, bad), last


def chosen(store: Store, ids: Sequence[int], max_bytes: int) -> tuple[list[Row], list[int], int]:
    """See `reading.chosen`; the damaged ones are set aside."""
    try:
        rows, bad, looked = store.rows(ids, max_bytes)
    except Exception as error:
        if blames_the_disk(error):
            raise
        if len(ids) > 1:
            return chosen(store, ids[: max(1, len(ids) // SMALLER)], max_bytes // SMALLER)
        rows, bad, looked = [], store.ids(ids[0] - 1, ids[0], 1), 1
        _say_unreadable(bad, error)
    return rows, _set_aside(store, bad), looked


def set_aside(store: Store, ids: Sequence[int]) -> list[int]:
    """Sets jobs aside that can be read and can't be sent; which of them are."""
    return _set_aside(store, store.present(ids))


def flagged(store: Store) -> list[int]:
    """Ids of dead letters that are to be put back, as many as one transaction takes."""
    return store.flagged(RETRY_PAGE, RETRY_BYTES)


def put_back(store: Store, flagged: Sequence[int], first: int) -> int | None:
    """Makes jobs of flagged dead letters, with ids from `first` on; how many, None: they can't be and stay flagged."""
    try:
        return store.put_back(flagged, first, time.time())
    except Exception as error:
        if blames_the_disk(error):
            raise
        message = f"{len(flagged):,} dead letters can't be put back, and stay flagged: {error!r}"
        log.error("dead_letters_stay", message=message, first_id=flagged[0])
        return None


def _set_aside(store: Store, bad: list[int]) -> list[int]:
    """Moves damaged jobs out of the way; where that can't be done they stay, and are passed over in this run."""
    if not bad:
        return bad
    try:
        store.set_aside(bad)
    except Exception as error:
        if blames_the_disk(error):
            raise
        message = f"{len(bad):,} damaged jobs can't be set aside, and stay in the journal unsent: {error!r}"
        log.error("journal_set_aside_failed", message=message, first_id=bad[0])
        return []
    return bad


def _say_unreadable(ids: list[int], error: Exception) -> None:
    log.error("journal_row_unreadable", message=f"A job in the journal can't be read: {error!r}", ids=ids)
