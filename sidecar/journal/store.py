"""The database: one connection, its transactions. No thread, no clock, no policy.

Every method may raise `sqlite3.Error`; after that nothing of its transaction is visible, though after an I/O error the
frames of a failed commit can still stand in the WAL: `checkpoint(truncate=True)` must succeed before the next promise.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sidecar.journal import blobs, reading, schema
from sidecar.journal.connection import BUSY_SECONDS, Damaged, NewerFormat, connect, transaction
from sidecar.journal.reading import Counts, read_counts, read_setting, sound_letter
from sidecar.journal.schema import DB_NAME, FORMAT, OLDEST_FORMAT, RUN_BITS, RUN_LENGTH
from sidecar.journal.seal import DeadLetter, Row, appended_at, mark, pack, seal_attempts, seal_letter, seal_text
from sidecar.journal.strays import set_strays_aside
from sidecar.logs import get_logger

LOOK_AT_ROWS = 1_000
"""Rows that are counted at each start, a few milliseconds: more than a row of counts says that holds fewer."""

log = get_logger()


class Addition(msgspec.Struct):
    """New jobs with ids `first`, `first + 1`, …; `at` in unix seconds."""

    first: int
    payloads: Sequence[bytes]
    origins: Sequence[int]
    at: float


class Change(msgspec.Struct):
    """What one transaction does. The additions' ids follow on each other without a gap.

    Attributes:
        ahead: parts of a very large append, each stored by an INSERT of its own; `additions` is empty then.
    """

    additions: list[Addition] = []
    gone: list[int] = []
    attempts: dict[int, int] = {}
    letters: list[DeadLetter] = []
    ahead: list[Addition] = []


def runs(ids: Iterable[int]) -> list[int]:
    """Ids as numbers that each stand for a run of neighbours: (first << RUN_BITS) | (length - 1)."""
    rising = sorted(ids)
    if not rising:
        return []
    found: list[int] = []
    start = previous = rising[0]
    for number in rising:
        if number > previous + 1 or number - start >= RUN_LENGTH:
            found.append(start << RUN_BITS | (previous - start))
            start = number
        previous = number
    found.append(start << RUN_BITS | (previous - start))
    return found


class Store:
    """An open journal database. `noted` are the ids that have a number of attempts."""

    def __init__(self, directory: Path, *, name: str = DB_NAME, db: sqlite3.Connection | None = None) -> None:
        """Opens the database, or creates it.

        Args:
            db: an empty database to be used in place of the directory's.

        Raises:
            Damaged, NewerFormat: see there.
            sqlite3.Error: it can't be opened or read.
        """
        self.directory = directory
        path = directory / name
        if db is None and not path.exists():
            path.touch(mode=0o600)
        self.db = connect(path) if db is None else db
        try:
            if self._unborn():
                with transaction(self.db):
                    for statement in schema.TABLES.split(";"):
                        self.db.execute(statement)
            self._check_format()
            self.db.executescript(schema.COMMIT_VIEW)
            self.noted = {row[0] for row in self.db.execute("SELECT id FROM attempts").fetchall()}
            strays = set_strays_aside(self.db)
            self.counts()
            self._look_for_uncounted()
            self._mend_counts(anew=strays > 0)
        except BaseException:
            self.db.close()
            raise
        self._data_version = self._one("PRAGMA data_version")

    def _look_for_uncounted(self) -> None:
        """Finds the jobs that light commits stored after the counts were moved last."""
        (counted,) = self.db.execute("SELECT last_id FROM counts").fetchone()
        self._uncounted = self._one("SELECT count(*) FROM jobs WHERE id > ?", (counted,))
        self._stored_to = max(counted, self._one("SELECT max(id) FROM jobs"))

    def _unborn(self) -> bool:
        """Whether the process ended between making the file and making the tables."""
        nothing = self._one("SELECT count(*) FROM sqlite_master") == 0
        return nothing and self._one("PRAGMA application_id") == 0 and self._one("PRAGMA page_count") <= 2

    def _check_format(self) -> None:
        (header,) = self.db.execute("PRAGMA user_version").fetchone()
        (application,) = self.db.execute("PRAGMA application_id").fetchone()
        try:
            said = self.setting("format")
        except sqlite3.OperationalError as error:
            raise Damaged(str(error)) from error
        self._older = OLDEST_FORMAT <= header < FORMAT
        if said is None and OLDEST_FORMAT <= header <= FORMAT:
            self.set_setting("format", str(header))
        elif said is not None and said.isdigit() and int(said) == header > FORMAT:
            raise NewerFormat(header)
        elif said != str(header) or not OLDEST_FORMAT <= header <= FORMAT or application != schema.APPLICATION_ID:
            raise Damaged(f"its header says format {header}, its contents {said}")

    def _mend_counts(self, *, anew: bool) -> None:
        """Recounts the rows of an older format, and where the first of them are more than the counts say.

        Args:
            anew: recount anyway.
        """
        counts = self.counts()
        if self._older:
            self.recount()
            with transaction(self.db):
                self.db.execute(f"PRAGMA user_version = {FORMAT}")
                self.set_setting("format", str(FORMAT))
        elif anew or self._has_more("jobs", counts.jobs) or self._has_more("dead", counts.dead):
            self.recount()

    def _has_more(self, table: str, said: int) -> bool:
        """Whether there are more rows than are counted, as far as that is seen without a scan."""
        if said >= LOOK_AT_ROWS:
            return False
        try:
            return self._one(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT ?)", (said + 1,)) > said  # noqa: S608
        except sqlite3.DatabaseError:
            return False  # what is damaged is seen to where it is read

    def recount(self) -> Counts:
        """Makes the counts of jobs and dead letters fit the rows, by a scan; says what was wrong."""
        counts = self.counts()
        jobs, dead = self._one("SELECT count(*) FROM jobs"), self._one("SELECT count(*) FROM dead")
        if (jobs, dead) != (counts.jobs, counts.dead):
            log.error(
                "journal_counts_mended",
                message=(
                    f"The journal's counts said {counts.jobs:,} jobs and {counts.dead:,} dead letters, "
                    f"and there are {jobs:,} and {dead:,}: mended"
                ),
                jobs=jobs,
                dead=dead,
            )
        self.set_counts(Counts(jobs, dead, counts.damaged, counts.last_id))
        return self.counts()

    def _one(self, sql: str, parameters: Sequence[object] = ()) -> int:
        row = self.db.execute(sql, parameters).fetchall()
        return int(row[0][0]) if row and row[0][0] is not None else 0

    # settings and counts

    def setting(self, key: str) -> str | None:
        """A recorded setting; None when there is none, or a damaged one."""
        return read_setting(self.db, key)

    def set_setting(self, key: str, value: str) -> None:
        """Records a setting."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, seal_text(key, value)))

    def counts(self) -> Counts:
        """What is stored, without a scan.

        Raises:
            Damaged: the row of counts is not what was written.
        """
        return read_counts(self.db)

    def set_counts(self, counts: Counts) -> None:
        """Replaces the row of counts, for a database that was just filled."""
        with transaction(self.db):
            self.db.execute("UPDATE counts SET jobs = 0, dead = 0, damaged = 0, last_id = 0, proof = 0")
            self.db.execute(
                schema.counts_sql(jobs="?1", dead="?2", damaged="?3", last_id="?4"),
                (counts.jobs, counts.dead, counts.damaged, counts.last_id),
            )
        self._look_for_uncounted()

    def add_raw(self, table: str, rows: Sequence[Sequence[object]]) -> int:
        """Copies rows of another journal as they are, without counting them; returns how many were new."""
        if not rows:
            return 0
        places = ", ".join("?" * len(rows[0]))
        before = self.db.total_changes
        with transaction(self.db):
            self.db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)  # noqa: S608 - no input
        return self.db.total_changes - before

    def drop_buried(self) -> int:
        """Deletes the jobs that are dead letters as well, without counting them; returns how many."""
        return self.db.execute("DELETE FROM jobs WHERE id IN (SELECT id FROM dead)").rowcount

    def highest_id(self) -> int:
        """The highest id that was ever used, also where the row of counts should not know it."""
        stored = max(self._one("SELECT max(id) FROM jobs"), self._one("SELECT max(id) FROM dead"))
        return max(self.counts().last_id, stored)

    # transactions

    def commit(self, change: Change) -> int:
        """Makes a change durable, all of it or nothing.

        Returns:
            how many stored jobs it removed.
        """
        if not (
            change.ahead or change.letters or change.attempts or (self.noted and not self.noted.isdisjoint(change.gone))
        ):
            if self._is_light(change):
                self._commit_light(change.additions)
                return 0
            removed = self._commit_entry(change)
            self._uncounted = 0
            return removed
        if change.ahead:
            self._count()  # each entry would count them
        with transaction(self.db):
            for part in change.ahead:
                self._add(part)
            removed = self._commit_entry(change)
            removed += self._bury(change.letters)
            done = [*change.gone, *(letter.id for letter in change.letters)]
            forgotten = self.noted.intersection(done)
            self.db.executemany("DELETE FROM attempts WHERE id = ?", [(number,) for number in forgotten])
            noted = {number: tries for number, tries in change.attempts.items() if number not in done}
            self.db.executemany(
                "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)",
                [(number, tries, seal_attempts(number, tries)) for number, tries in noted.items()],
            )
        self._uncounted = 0
        self.noted -= forgotten
        self.noted |= noted.keys()
        return removed

    def _is_light(self, change: Change) -> bool:
        """Whether there are only a few jobs to be stored, as beside a serial producer."""
        if change.gone or self._uncounted >= schema.UNCOUNTED_JOBS:
            return False
        return 0 < sum([len(addition.payloads) for addition in change.additions]) <= schema.LIGHT_JOBS

    def _commit_light(self, additions: Sequence[Addition]) -> None:
        values: list[object] = []
        number = additions[0].first
        for addition in additions:
            for payload, origin in zip(addition.payloads, addition.origins, strict=True):
                values += (number, mark(number, payload, origin, addition.at), payload)
                number += 1
        jobs = number - additions[0].first
        self.db.execute(schema.LIGHT_COMMITS[jobs], values)
        self._uncounted += jobs
        self._stored_to = number - 1

    def _count(self) -> None:
        """Moves the counts over what light commits stored."""
        if self._uncounted:
            sql = schema.counts_sql(jobs="?1", last_id="?2")
            self.db.execute(sql, (self._uncounted, self._stored_to))
            self._uncounted = 0

    def _commit_entry(self, change: Change) -> int:
        pieces: list[bytes] = []
        cuts: list[int] = []
        offset = 1
        for addition in change.additions:
            more, where, offset = pack(addition.first, addition.payloads, addition.origins, addition.at, offset)
            pieces += more
            cuts += where
        first = change.additions[0].first if change.additions else 0
        last = first + len(cuts) - 1 if cuts else 0
        before = self.db.total_changes
        last = max(last, self._stored_to)
        jobs = len(cuts) + self._uncounted
        self.db.execute(schema.COMMIT, (first, b"".join(pieces), str(cuts), jobs, last, str(runs(change.gone))))
        self._stored_to = last
        return self.db.total_changes - before - len(cuts) - 1  # 1: the row of counts

    def _add(self, addition: Addition) -> None:
        """Stores jobs within a transaction."""
        number, payload = addition.first, addition.payloads[0] if addition.payloads else b""
        if len(addition.payloads) != 1 or len(payload) < blobs.LARGE:
            self._commit_entry(Change(additions=[addition]))
            return
        sealed = mark(number, payload, addition.origins[0], addition.at)
        self.db.execute("INSERT INTO jobs VALUES (?, ?, zeroblob(?))", (number, sealed, len(payload)))
        blobs.fill(self.db, "jobs", number, payload)
        self.db.execute(schema.counts_sql(jobs="1", last_id="?1"), (number,))
        self._stored_to = number

    def _bury(self, letters: Sequence[DeadLetter]) -> int:
        removed = 0
        for letter in letters:
            self.db.execute(
                "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?, zeroblob(?))",
                (
                    letter.id,
                    letter.jid,
                    letter.reason,
                    letter.attempts,
                    letter.at,
                    seal_letter(letter),
                    len(letter.payload),
                ),
            )
            blobs.fill(self.db, "dead", letter.id, letter.payload)
            removed += self.db.execute("DELETE FROM jobs WHERE id = ?", (letter.id,)).rowcount
        if letters:
            self.db.execute(schema.counts_sql(jobs="?1", dead="?2"), (-removed, len(letters)))
        return removed

    def set_aside(self, ids: Sequence[int]) -> None:
        """Moves damaged jobs out of the way, as they are."""
        self._count()
        with transaction(self.db):
            for number in ids:
                self.db.execute(
                    "INSERT INTO damaged (id, found, mark, payload) SELECT id, ?, mark, payload FROM jobs WHERE id = ?",
                    (time.time(), number),
                )
                if self.db.execute("DELETE FROM jobs WHERE id = ?", (number,)).rowcount != 1:
                    raise Damaged("a damaged job can't be found again")
            self.db.execute(schema.counts_sql(jobs="?1", damaged="?2"), (-len(ids), len(ids)))

    def correct(self, jobs: int) -> None:
        """Sets the count of jobs, after some were found missing."""
        self._count()
        self.db.execute(schema.counts_sql(jobs="?1"), (jobs - self.counts().jobs,))

    # reading

    def page(self, after: int, limit: int, max_bytes: int) -> tuple[list[Row], list[int], int]:
        """See `reading.page`."""
        return reading.page(self.db, after, limit, max_bytes)

    def rows(self, ids: Sequence[int], max_bytes: int) -> tuple[list[Row], list[int], int]:
        """See `reading.chosen`."""
        return reading.chosen(self.db, ids, max_bytes)

    def present(self, ids: Sequence[int]) -> list[int]:
        """Which of these jobs are stored."""
        sql = "SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
        return reading.numbers(self.db, sql, (str(list(ids)),))

    def ids(self, after: int, last: int, limit: int) -> list[int]:
        """Ids of stored jobs above `after` and not above `last`, rising, at most `limit`."""
        sql = "SELECT id FROM jobs WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        return reading.numbers(self.db, sql, (after, last, limit))

    def oldest(self) -> float | None:
        """When the oldest stored job was appended, in unix seconds (0: unknown); None when none is stored."""
        found = self.db.execute("SELECT mark FROM jobs ORDER BY id LIMIT 1").fetchall()
        return appended_at(found[0][0]) if found else None

    # dead letters that another process flagged

    def changed_elsewhere(self) -> bool:
        """Whether another process has committed since the last call."""
        version = self._one("PRAGMA data_version")
        changed, self._data_version = version != self._data_version, version
        return changed

    def to_be_put_back(self) -> int:
        """How many dead letters are flagged."""
        return self._one(schema.FLAGGED)

    def flagged(self, limit: int, max_bytes: int) -> list[int]:
        """Ids of dead letters that are to be put back, at most `limit` and about `max_bytes`, one at least."""
        sizes = self.db.execute(schema.FLAGGED_SIZES, (limit,)).fetchall()
        return [number for number, _ in reading.cut_by_bytes(sizes, max_bytes)]

    def put_back(self, flagged: Sequence[int], first: int, at: float) -> int:
        """Makes jobs of flagged dead letters, with ids from `first` on; returns how many."""
        letters: list[DeadLetter] = []
        self._count()
        with transaction(self.db):
            for number in flagged:
                letters += self.letters(number, number)
            self._add(Addition(first, [letter.payload for letter in letters], [0] * len(letters), at))
            for letter in letters:
                self.db.execute("DELETE FROM dead WHERE id = ?", (letter.id,))
            self.db.executemany("DELETE FROM requeue WHERE id = ?", [(number,) for number in flagged])
            self.db.execute(schema.counts_sql(dead="?1"), (-len(letters),))
        return len(letters)

    def letters(self, low: int, high: int) -> list[DeadLetter]:
        """The sound dead letters with ids from `low` to `high`."""
        found = self.db.execute(
            "SELECT id, jid, reason, attempts, payload, at, crc FROM dead WHERE id BETWEEN ? AND ? ORDER BY id",
            (low, high),
        ).fetchall()
        pairs = [(sound_letter(row), row) for row in found]
        return [letter for letter, _ in pairs if letter is not None]

    def latest_letters(self, limit: int, max_bytes: int) -> list[DeadLetter]:
        """The sound ones of the latest dead letters, the newest first: at most `limit` and about `max_bytes`."""
        sql = "SELECT id, ifnull(length(payload), 0) FROM dead ORDER BY id DESC LIMIT ?"
        sizes = reading.cut_by_bytes(self.db.execute(sql, (limit,)).fetchall(), max_bytes)
        return [letter for number, _ in sizes for letter in self.letters(number, number)]

    # space

    def pages(self) -> tuple[int, int]:
        """Pages of the database, and those of them that are free."""
        return self._one("PRAGMA page_count"), self._one("PRAGMA freelist_count")

    def checkpoint(self, *, truncate: bool) -> bool:
        """Moves the WAL's contents into the database; False while a reader of another process is in the way."""
        if not truncate:
            busy, log, moved = self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0]
            return bool(busy == 0 and log == moved)
        self.db.execute("PRAGMA busy_timeout = 100")  # a reader is gone in a moment, or it can wait for the next time
        try:
            return bool(self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0] == 0)
        finally:
            self.db.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")

    def give_back(self, pages: int) -> None:
        """Returns up to so many free pages to the file system, by moving the last ones forward."""
        self.db.executescript(f"PRAGMA incremental_vacuum({pages})")

    def write_anew(self) -> None:
        """Writes the whole database anew, without free pages."""
        self.db.execute("VACUUM")

    def probe(self) -> None:
        """A small commit that is really written (an UPDATE to the same value isn't): raises when the disk refuses."""
        self.set_setting("probed", f"{time.time():.6f}")

    def close(self) -> None:
        """Closes; SQLite moves the WAL's contents into the database and removes it."""
        self.db.close()
