"""What it takes after a failure until the disk is trusted again: policy around store and space.

A full disk, a quota, a bound on a file's size, a failed sync: only some of them say what they are, so all are treated
alike. The reserve's room is given up, which lets deletions go on; jobs are accepted once the WAL could be moved into
the database and the reserve is back, with as much room beside it. Making both is the trial, whatever the figures say.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial

from sidecar.journal.connection import is_undone
from sidecar.journal.space import Space
from sidecar.journal.store import Store
from sidecar.logs import get_logger

MEND_FIRST, MEND_LAST = 0.05, 1.0
"""Seconds between attempts to mend: the first, doubled up to the last."""
SAID_EVERY = 10.0
"""Seconds between two lines about a full or a broken journal: beside a slow link, or where only small writes succeed,
it is that, and isn't, many times a second."""

log = get_logger()


class Mending:
    """Remembers what failed.

    Attributes:
        due: monotonic second of the next attempt.
        full: why there is no room for jobs; None: there is.
        wal_stands: something failed since the WAL was last moved as a whole.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._in_doubt = False  # a failed commit's frames may stand in the WAL, and come back
        self._pause = MEND_FIRST
        self._full_said_at = self._broken_said_at = -SAID_EVERY
        self.wal_stands = False
        self.full: str | None = None
        self.due = 0.0

    def failed(self, error: Exception, *, first: bool) -> str:
        """A step failed; says how. `first`: all seemed well before."""
        self.wal_stands = self._space.doubted = True
        self._in_doubt |= not (isinstance(error, sqlite3.Error) and is_undone(error))
        self._give_reserve()
        now = time.monotonic()
        if now >= self.due:
            self.due = now + self._pause
            self._pause = min(2 * self._pause, MEND_LAST)
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        fault = f"{'disk full' if full else 'commit failed'}: {error}{self._space.file_bound()}"
        if first and now >= self._broken_said_at + SAID_EVERY:
            self._broken_said_at = now
            log.error("journal_broken", message=f"Jobs are refused until the disk works again: {fault}")
        return fault

    def worked(self) -> None:
        """A commit of what waited succeeded: the next failure is a new one. A small one, as a trial, tells less."""
        self._pause = MEND_FIRST
        self._broken_said_at = -SAID_EVERY

    def attempt(self, store: Store) -> None:
        """Tries a commit, after all that is in doubt was settled.

        Raises:
            sqlite3.Error: the disk refuses.
        """
        if self._in_doubt:
            self._cut_wal(store)
        store.probe()
        self._in_doubt = False

    def _give_reserve(self) -> None:
        try:
            self._space.drop_reserve()
        except OSError as error:
            log.debug("reserve_stays", message=f"The reserve can't be given up: {error}")

    def disk_lacks(self, store: Store) -> str | None:
        """Why the disk takes no more jobs; None when it does."""
        if self.wal_stands:
            try:
                self._cut_wal(store)
            except sqlite3.Error as error:
                return f"disk full: the write-ahead log can't be moved into the database ({error})"
        return self._asked(self._space.disk_lacks)

    def volume_lacks(self, size: int) -> str | None:
        """Why the volume can't take so many bytes in one transaction; None when it can."""
        return self._asked(partial(self._space.volume_lacks, size))

    def _asked(self, lacking: Callable[[], str | None]) -> str | None:
        """An answer about the directory; where there is none jobs are refused, and what is open goes on deleting."""
        try:
            return lacking()
        except OSError as error:
            return f"{self._space.directory} doesn't tell its room ({error.strerror}); have a look at its volume"

    def note_full(self, lacking: str | None) -> None:
        """Remembers why there is no room for jobs, if there is none, and says so."""
        now = time.monotonic()
        if lacking is not None and self.full is None and now >= self._full_said_at + SAID_EVERY:
            self._full_said_at = now
            log.error("journal_full", message=f"Jobs are refused: {lacking}")
        self.full = lacking

    def _cut_wal(self, store: Store) -> None:
        if not store.checkpoint(truncate=True):
            raise sqlite3.OperationalError("a reader is in the way of the checkpoint")
        self._space.wal = 0
        self.wal_stands = False
