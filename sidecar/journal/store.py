"""The database: one connection, its transactions. No thread, no clock, no policy.

Every method may raise `sqlite3.Error`; after that nothing of its transaction is visible, though after an I/O error the
frames of a failed commit can still stand in the WAL: `checkpoint(truncate=True)` must succeed before the next promise.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.journal import schema
from sidecar.journal.schema import DB_NAME, FORMAT, RUN_BITS, RUN_LENGTH
from sidecar.journal.seal import DeadLetter, Row, appended_at, opened, pack, seal_attempts, seal_letter, seal_text

PAGE_BYTES = 4096
BUSY_SECONDS = 5.0
"""A `journal` command of another process holds the write lock for milliseconds."""


class Damaged(Exception):
    """The file is not a sound journal: `rebuild` reads out of it what can be read."""


class NewerFormat(Exception):
    """The file was written by a later version of the program; `args[0]` is its format."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the journal holds, by its own row of counts."""

    jobs: int = 0
    dead: int = 0
    damaged: int = 0
    last_id: int = 0


@dataclass(slots=True)
class Addition:
    """New jobs with ids `first`, `first + 1`, …; `at` in unix seconds."""

    first: int
    payloads: Sequence[bytes]
    origins: Sequence[int]
    at: float


@dataclass(slots=True)
class Change:
    """What one transaction does. The additions' ids follow on each other without a gap."""

    additions: list[Addition] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)


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


def connect(path: Path) -> sqlite3.Connection:
    """A connection to an existing file with the journal's settings, for one thread at a time, whichever."""
    db = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_SECONDS,
    )
    try:
        for pragma in (
            "temp_store = MEMORY",  # a read-only root file system has no place for temporary files
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = FULL",
            "fullfsync = ON",  # macOS: fsync alone doesn't reach the medium there
            "checkpoint_fullfsync = ON",
            "secure_delete = OFF",  # Debian's default overwrites deleted rows: twice the writes
            "wal_autocheckpoint = 0",  # done after the replies instead of within a commit
            "cache_size = -8192",
            "trusted_schema = ON",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class Store:
    """An open journal database. `noted` are the ids that have a number of attempts."""

    def __init__(self, directory: Path, *, name: str = DB_NAME) -> None:
        """Opens the database, or creates it.

        Raises:
            Damaged, NewerFormat: see there.
            sqlite3.Error: it can't be opened or read.
        """
        self.directory = directory
        path = directory / name
        fresh = not path.exists() or path.stat().st_size == 0
        if fresh:
            path.touch(mode=0o600)
        self.db = connect(path)
        try:
            if fresh or self._unborn():
                with self._transaction():
                    for statement in schema.TABLES.split(";"):
                        self.db.execute(statement)
            self._check_format()
            self.db.executescript(schema.COMMIT_VIEW)
            self.noted = {row[0] for row in self.db.execute("SELECT id FROM attempts").fetchall()}
        except BaseException:
            self.db.close()
            raise
        self._data_version = self._one("PRAGMA data_version")

    def _unborn(self) -> bool:
        """Whether the process ended between making the file and making the tables."""
        nothing = self._one("SELECT count(*) FROM sqlite_schema") == 0
        return nothing and self._one("PRAGMA application_id") == 0 and self._one("PRAGMA page_count") <= 2

    def _check_format(self) -> None:
        (header,) = self.db.execute("PRAGMA user_version").fetchone()
        (application,) = self.db.execute("PRAGMA application_id").fetchone()
        try:
            said = self.setting("format")
        except sqlite3.OperationalError as error:
            raise Damaged(str(error)) from error
        if said is None and header == FORMAT:
            self.set_setting("format", str(FORMAT))
        elif said is not None and said.isdigit() and int(said) == header > FORMAT:
            raise NewerFormat(header)
        elif said != str(FORMAT) or header != FORMAT or application != schema.APPLICATION_ID:
            raise Damaged(f"its header says format {header}, its contents {said}")

    def _one(self, sql: str, parameters: Sequence[object] = ()) -> int:
        row = self.db.execute(sql, parameters).fetchall()
        return int(row[0][0]) if row and row[0][0] is not None else 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

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
        with self._transaction():
            self.db.execute("UPDATE counts SET jobs = 0, dead = 0, damaged = 0, last_id = 0, proof = 0")
            self.db.execute(
                schema.counts_sql(jobs="?1", dead="?2", damaged="?3", last_id="?4"),
                (counts.jobs, counts.dead, counts.damaged, counts.last_id),
            )

    def add_raw(self, table: str, rows: Sequence[Sequence[object]]) -> int:
        """Copies rows of another journal as they are, without counting them; returns how many were new."""
        if not rows:
            return 0
        places = ", ".join("?" * len(rows[0]))
        before = self.db.total_changes
        with self._transaction():
            self.db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)  # noqa: S608 - no input
        return self.db.total_changes - before

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
        if not (change.letters or change.attempts or (self.noted and not self.noted.isdisjoint(change.gone))):
            return self._commit_entry(change)
        with self._transaction():
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
        self.noted -= forgotten
        self.noted |= noted.keys()
        return removed

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
        self.db.execute(schema.COMMIT, (first, b"".join(pieces), str(cuts), len(cuts), last, str(runs(change.gone))))
        return self.db.total_changes - before - len(cuts) - 1  # 1: the row of counts

    def _bury(self, letters: Sequence[DeadLetter]) -> int:
        removed = 0
        for letter in letters:
            self.db.execute(
                "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?, ?)",
                (letter.id, letter.jid, letter.reason, letter.attempts, letter.at, seal_letter(letter), letter.payload),
            )
            removed += self.db.execute("DELETE FROM jobs WHERE id = ?", (letter.id,)).rowcount
        if letters:
            self.db.execute(schema.counts_sql(jobs="?1", dead="?2"), (-removed, len(letters)))
        return removed

    def set_aside(self, ids: Sequence[int]) -> None:
        """Moves damaged jobs out of the way, as they are."""
        with self._transaction():
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
        self.db.execute(schema.counts_sql(jobs="?1"), (jobs - self.counts().jobs,))

    # reading

    def page(self, after: int, limit: int, max_bytes: int) -> tuple[list[Row], list[int], int]:
        """Stored jobs with an id above `after`, in order, at most `limit` and about `max_bytes`, one at least.

        Returns:
            the sound ones, the ids of the damaged ones, and the last id that was looked at (`after`: none is left).

        Raises:
            Damaged: more than a row here and there is wrong.
        """
        ids, sizes = self.db.execute(schema.PAGE_SIZES, (after, limit)).fetchall()[0]
        if ids is None:
            return [], [], after
        numbers = _numbers(ids)
        if numbers[0] <= after or numbers != sorted(set(numbers)):
            raise Damaged("its jobs are out of order")
        total, last = 0, numbers[0]
        for number, size in zip(numbers, _numbers(sizes), strict=False):
            total += size
            if total > max_bytes and number != numbers[0]:
                break
            last = number
        rows, bad = self._cut(self.db.execute(schema.PAGE, (after, last)).fetchall()[0])
        if len(rows) + len(bad) != bisect_right(numbers, last):
            raise Damaged("its jobs can't be found again")
        return rows, bad, last

    def rows(self, ids: Sequence[int]) -> tuple[list[Row], list[int]]:
        """These jobs as far as they are stored, and the ids of damaged ones among them."""
        joined = self.db.execute(schema.CHOSEN, (str(list(ids)),)).fetchall()[0]
        return self._cut(joined)

    def _cut(self, joined: tuple[str | None, str, str, bytes, bytes, str]) -> tuple[list[Row], list[int]]:
        if joined[0] is None:
            return [], []
        numbers, marks, sizes = _numbers(joined[0]), _numbers(joined[1]), _numbers(joined[2])
        if not len(numbers) == len(marks) == len(sizes) or sum(sizes) != len(joined[4]) or sum(marks) != len(joined[3]):
            return self._one_by_one(numbers)  # a damaged row has a NULL where a value was
        rows: list[Row] = []
        bad: list[int] = []
        here = there = 0
        for number, width, size, tries in zip(numbers, marks, sizes, joined[5].split(","), strict=True):
            payload = joined[4][there : there + size]
            whence = opened(number, joined[3][here : here + width], payload)
            here += width
            there += size
            if whence is None:
                bad.append(number)
            else:
                rows.append(Row(number, whence[0], _attempts(number, tries), payload, whence[1]))
        return rows, bad

    def _one_by_one(self, numbers: Sequence[int]) -> tuple[list[Row], list[int]]:
        rows: list[Row] = []
        bad: list[int] = []
        for number in numbers:
            found = self.db.execute("SELECT mark, payload FROM jobs WHERE id = ?", (number,)).fetchall()
            mark, payload = found[0] if found else (b"", b"")
            sound = isinstance(mark, bytes) and isinstance(payload, bytes)
            whence = opened(number, mark, payload) if sound else None
            if whence is None:
                bad.append(number)
            else:
                rows.append(Row(number, whence[0], 0, payload, whence[1]))
        return rows, bad

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

    def flagged(self, limit: int) -> list[int]:
        """Ids of dead letters that are to be put back, at most `limit`."""
        return [row[0] for row in self.db.execute("SELECT id FROM requeue ORDER BY id LIMIT ?", (limit,)).fetchall()]

    def put_back(self, flagged: Sequence[int], first: int, at: float) -> int:
        """Makes jobs of flagged dead letters, with ids from `first` on; returns how many."""
        letters: list[DeadLetter] = []
        with self._transaction():
            for number in flagged:
                letters += self.letters(number, number)
            whole = Change([Addition(first, [letter.payload for letter in letters], [0] * len(letters), at)])
            self._commit_entry(whole)
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

    def latest_letters(self, limit: int) -> list[DeadLetter]:
        """The sound ones of the latest dead letters, the newest first."""
        ids = self.db.execute("SELECT id FROM dead ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [letter for (number,) in ids for letter in self.letters(number, number)]

    # space

    def pages(self) -> tuple[int, int]:
        """Pages of the database, and those of them that are free."""
        return self._one("PRAGMA page_count"), self._one("PRAGMA freelist_count")

    def checkpoint(self, *, truncate: bool) -> bool:
        """Moves the WAL's contents into the database; False while a reader of another process is in the way."""
        mode = "TRUNCATE" if truncate else "PASSIVE"
        busy, log, moved = self.db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()[0]
        return bool(busy == 0 and log == moved)

    def give_back(self, pages: int) -> None:
        """Returns up to so many free pages to the file system, by moving the last ones forward."""
        self.db.executescript(f"PRAGMA incremental_vacuum({pages})")

    def probe(self) -> None:
        """A small commit that is really written (an UPDATE to the same value isn't): raises when the disk refuses."""
        self.set_setting("probed", f"{time.time():.6f}")

    def close(self) -> None:
        """Closes; SQLite moves the WAL's contents into the database and removes it."""
        self.db.close()


def sound_letter(row: Sequence[object]) -> DeadLetter | None:
    """The dead letter of a row `id, jid, reason, attempts, payload, at, crc`; None when its seal doesn't fit."""
    number, jid, reason, attempts, payload, at, crc = row
    if not (isinstance(number, int) and isinstance(jid, str) and isinstance(reason, str) and isinstance(attempts, int)):
        return None
    if not (isinstance(payload, bytes) and isinstance(at, float)):
        return None
    letter = DeadLetter(number, jid, reason, attempts, payload, at)
    return letter if crc == seal_letter(letter) else None


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
    if len(found) != 1 or found[0][4] != 1:
        raise Damaged("its row of counts is wrong")
    return Counts(*found[0][:4])


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
