"""Rows with an id that no append gives: they would stand outside every page, or leave no id for new jobs."""

from __future__ import annotations

import sqlite3
import time

from sidecar.journal.connection import transaction
from sidecar.journal.schema import MOST_ID, counts_sql
from sidecar.logs import get_logger

log = get_logger()

_STRAYS = f"id < 1 OR id > {MOST_ID}"
_ASIDE = {
    table: f"INSERT INTO damaged (id, found, mark, payload) SELECT id, ?, {mark}, payload FROM {table} WHERE {_STRAYS}"  # noqa: S608 - constants
    for table, mark in (("jobs", "mark"), ("dead", "NULL"))
}


def set_strays_aside(db: sqlite3.Connection) -> int:
    """Moves them out of the way, as they are; the counts of jobs and dead letters are wrong after that.

    Returns:
        how many there were.
    """
    sql = f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {_STRAYS}) OR EXISTS (SELECT 1 FROM dead WHERE {_STRAYS})"  # noqa: S608
    if not db.execute(sql).fetchall()[0][0]:
        return 0
    found = 0
    with transaction(db):
        for table, aside in _ASIDE.items():
            found += db.execute(aside, (time.time(),)).rowcount
            db.execute(f"DELETE FROM {table} WHERE {_STRAYS}")  # noqa: S608
        db.execute(counts_sql(damaged="?1"), (found,))
    log.error(
        "journal_rows_damaged",
        message=f"{found:,} rows in the journal have ids that no append gives: set aside, not sent",
        jobs=found,
    )
    return found
