"""Large payloads, written and read in slices.

A value that passes through SQL is copied by the binding, by the record that is built of it, and by each function on its
way: a job of 30 MiB took 120 MiB more. In slices it takes the page cache, and no more time.
"""

from __future__ import annotations

import sqlite3

LARGE = 1024 * 1024
"""Bytes of a payload from which on it is worth a statement of its own."""
SLICE = 256 * 1024


def fill(db: sqlite3.Connection, table: str, number: int, payload: bytes) -> None:
    """Write the payload of a row that was inserted with a `zeroblob` of its size, within the same transaction."""
    view = memoryview(payload)
    with db.blobopen(table, "payload", number) as blob:
        for start in range(0, len(view), SLICE):
            blob.write(view[start : start + SLICE])


def read(db: sqlite3.Connection, table: str, number: int) -> bytes:
    """The payload of a row, copied once.

    Raises:
        sqlite3.OperationalError: there is no such row, or what it has isn't bytes.
    """
    with db.blobopen(table, "payload", number, readonly=True) as blob:
        return blob.read()
