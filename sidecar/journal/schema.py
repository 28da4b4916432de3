"""The tables of the journal, and the one statement that is a whole commit.

CPython releases and takes the interpreter's lock around each `sqlite3_step`, and beside a busy event loop each of
these can cost a switch interval (5 ms). So a group commit is a single autocommitted INSERT into a temporary view: its
trigger cuts the rows out of one long value, deletes what is settled and moves the counts. Measured beside a thread
that computes without a pause, 1,000 jobs: 9 ms; BEGIN, multi-row VALUES, COMMIT: 64 ms; `executemany`: 1,200 ms.
"""

from __future__ import annotations

from sidecar.journal.seal import LENGTH_BITS, LENGTH_MASK, MARK_BYTES

APPLICATION_ID = 0x46414B53  # "FAKS", in the header of the file
FORMAT = 2
"""Whatever something in the file means, this number says: it changes with the meaning. 1: the row of counts may count
all rows, or those up to its `last_id`; 2: those up to its `last_id`, as light commits leave it."""
OLDEST_FORMAT = 1
DB_NAME = "journal.db"
WAL_NAME = f"{DB_NAME}-wal"

RUN_BITS = 20
RUN_LENGTH = 1 << RUN_BITS
"""Longest run of settled ids in one number: (first << RUN_BITS) | (length - 1)."""
MOST_ID = (1 << 63 - RUN_BITS) - 1
"""Highest id of a job: a run that begins with it is still a number of SQLite's."""

_PROOF = "3 * ({jobs}) + 5 * ({dead}) + 7 * ({damaged}) + 11 * ({last_id})"
"""Tells a flipped bit in the row of counts, and can be moved by another process too."""


def counts_sql(*, jobs: str = "0", dead: str = "0", damaged: str = "0", last_id: str = "0") -> str:
    """The UPDATE that moves the counts by these SQL expressions (`last_id`: raises it to)."""
    to = {
        "jobs": f"jobs + {jobs}",
        "dead": f"dead + {dead}",
        "damaged": f"damaged + {damaged}",
        "last_id": f"max(last_id, {last_id})",
    }
    moved = ", ".join(f"{name} = {value}" for name, value in to.items())
    return f"UPDATE counts SET {moved}, proof = {_PROOF.format(**to)}"  # noqa: S608 - constants of this module


TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    jobs INTEGER NOT NULL, dead INTEGER NOT NULL, damaged INTEGER NOT NULL,
    last_id INTEGER NOT NULL, proof INTEGER NOT NULL);
INSERT INTO counts VALUES (1, 0, 0, 0, 0, 0);
CREATE TABLE jobs (id INTEGER PRIMARY KEY, mark BLOB NOT NULL, payload BLOB NOT NULL);
CREATE TABLE attempts (id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY, jid TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
    at REAL NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE requeue (id INTEGER PRIMARY KEY);
CREATE TABLE damaged (number INTEGER PRIMARY KEY, id INTEGER, found REAL NOT NULL, mark BLOB, payload BLOB);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""  # noqa: S608 - constants of this module, here and below

COMMIT_VIEW = f"""
CREATE TEMP VIEW entry AS
    SELECT 0 AS first, x'' AS body, '[]' AS cuts, 0 AS jobs, 0 AS last_id, '[]' AS gone;
CREATE TEMP TRIGGER commit_entry INSTEAD OF INSERT ON entry BEGIN
    INSERT INTO jobs (id, mark, payload)
        SELECT NEW.first + cut.key,
            substr(NEW.body, cut.value >> {LENGTH_BITS}, {MARK_BYTES}),
            substr(NEW.body, (cut.value >> {LENGTH_BITS}) + {MARK_BYTES}, cut.value & {LENGTH_MASK})
        FROM json_each(NEW.cuts) AS cut;
    DELETE FROM jobs WHERE id IN (
        SELECT job.id FROM json_each(NEW.gone) AS run CROSS JOIN jobs AS job
        WHERE job.id BETWEEN (run.value >> {RUN_BITS})
            AND (run.value >> {RUN_BITS}) + (run.value & {RUN_LENGTH - 1}));
    {counts_sql(jobs="NEW.jobs - changes()", last_id="NEW.last_id")};
END;
"""  # noqa: S608
LIGHT_JOBS = 16
"""Most jobs that are stored by a plain INSERT, where nothing else is to be done."""
UNCOUNTED_JOBS = 1_000
"""Most jobs above `counts.last_id`: they are counted when the counts are read."""
LIGHT_COMMITS = tuple(
    "INSERT INTO jobs VALUES " + ", ".join(["(?, ?, ?)"] * jobs)  # noqa: S608 - nothing but places
    for jobs in range(LIGHT_JOBS + 1)
)
"""By the number of jobs. One step too, and half the work: no cutting, and the page with the counts stays as it is."""

COMMIT = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)"

PROVEN_COUNTS = f"""
SELECT counts.jobs + (SELECT count(*) FROM jobs AS job WHERE job.id > counts.last_id), dead, damaged,
    max(last_id, ifnull((SELECT max(job.id) FROM jobs AS job), 0)),
    proof = {_PROOF.format(jobs="counts.jobs", dead="dead", damaged="damaged", last_id="last_id")} FROM counts
"""  # noqa: S608

# A page is read in two steps of the virtual machine, however many rows it has: first how far it reaches, then all of
# it, joined. The rows go into the aggregates in the order of the subquery; the ids that come along prove it. Marks are
# joined as hexadecimal digits: before 3.34, about, `group_concat` ends at the first zero byte.
_SIZES = "SELECT id, ifnull(length(mark) + length(payload), 0) AS size FROM jobs WHERE {which} ORDER BY id LIMIT ?"
_RANGE, _LISTED = "id > ? AND id <= ?", "id IN (SELECT value FROM json_each(?))"
PAGE_SIZES, CHOSEN_SIZES = _SIZES.format(which=_RANGE), _SIZES.format(which=_LISTED)
PAGE_REACH = f"SELECT count(*), total(size), max(id) FROM ({PAGE_SIZES})"  # noqa: S608
CHOSEN_REACH = f"SELECT count(*), total(size), max(id) FROM ({CHOSEN_SIZES})"  # noqa: S608
FLAGGED = "SELECT count(*) FROM requeue JOIN dead ON dead.id = requeue.id"
FLAGGED_SIZES = """
SELECT requeue.id, ifnull(length(payload), 0) FROM requeue LEFT JOIN dead ON dead.id = requeue.id
ORDER BY requeue.id LIMIT ?
"""
_TRIES = "ifnull(note.attempts || ':' || note.crc, '')"
_JOINED = """
SELECT group_concat(id), group_concat(length(mark)), group_concat(length(payload)),
    group_concat(hex(mark), ''), CAST(group_concat(payload, '') AS BLOB),
    group_concat(tries) FROM (
    SELECT job.id AS id, CAST(job.mark AS BLOB) AS mark, CAST(job.payload AS BLOB) AS payload,
        {tries} AS tries
    FROM (SELECT * FROM jobs WHERE {which}) AS job LEFT JOIN attempts AS note ON note.id = job.id ORDER BY job.id)
"""
PAGE = _JOINED.format(tries=_TRIES, which=_RANGE)
CHOSEN = _JOINED.format(tries=_TRIES, which=_LISTED)
ONE = f"""
SELECT job.mark, typeof(job.payload) = 'blob', {_TRIES}
FROM jobs AS job LEFT JOIN attempts AS note ON note.id = job.id WHERE job.id = ?
"""  # noqa: S608
