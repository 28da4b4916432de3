"""Opening a journal, whatever state its files are in.

A sound journal opens without a scan: its counts are a row. After an unclean stop the WAL is looked at before SQLite
opens it, because SQLite drops the frames behind a broken one without a word. A damaged database is copied aside and
built anew from everything that can still be read. The new file becomes the journal by one rename, so a crash at any
step leaves either the old files or the new one.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sidecar.errors import StartError
from sidecar.journal import questions
from sidecar.journal.connection import PAGE_BYTES, Damaged, NewerFormat, is_damage
from sidecar.journal.salvage import carry_over
from sidecar.journal.schema import DB_NAME, FORMAT
from sidecar.journal.store import Store
from sidecar.journal.wal import scan
from sidecar.logs import get_logger

log = get_logger()

NEW_NAME = "journal.new"
"""A database that is being built: incomplete, thrown away at the next start."""
REBUILT_NAME = "journal.rebuilt"
"""A complete one, that takes the journal's place."""
_WITH_DB = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found at the start.

    Attributes:
        jobs, dead: that wait; that are dead letters.
        unclean: the last owner didn't close the journal.
        replaced: it did, but its file isn't the one that was closed: a copy was put in its place.
        damaged: rows that were set aside because their seal didn't fit.
        earlier: of the jobs, those that only an earlier state of the damaged files had: they may be delivered.
        unknown_bytes: bytes of the files that could not be read: at most so much of the jobs is unknown.
        set_aside: where a copy of the damaged files is.
    """

    jobs: int = 0
    dead: int = 0
    unclean: bool = False
    replaced: bool = False
    damaged: int = 0
    earlier: int = 0
    unknown_bytes: int = 0
    set_aside: Path | None = None


def make_directory(directory: Path) -> None:
    """Makes the directory and its parents, and syncs the entries of those that are new.

    Raises:
        OSError: it can't be made.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Makes the entries of a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_store(directory: Path, *, unclean: bool, prepare: Callable[[Store], None]) -> tuple[Store, Recovery]:
    """Opens the journal of a directory that this process owns, mending it where needed.

    Args:
        prepare: what else is done at the start, again after a rebuild when it meets damage.

    Raises:
        StartError: it was written by a later version.
        OSError, sqlite3.Error: the disk refuses.
    """
    _finish_rebuild(directory)
    try:
        damage = _look_at_wal(directory) if unclean else None
        if damage is not None:
            store, recovery = rebuild(directory, damage)
            prepare(store)
        else:
            store, recovery = _open_sound(directory, prepare)
    except NewerFormat as error:
        raise StartError(
            f"journal {directory} was written by a later version (format {error.args[0]}, this one knows {FORMAT}); "
            "use that version or another SIDECAR_JOURNAL_DIR"
        ) from error
    counts = store.counts()
    sync_directory(directory)
    return store, replace(recovery, jobs=counts.jobs, dead=counts.dead, unclean=unclean)


def prepare(upstream: str, adopt: bool, store: Store) -> None:
    """Records the upstream that the journal is filled for, and puts flagged dead letters back.

    Raises:
        StartError: it holds jobs for another one.
    """
    store.oldest()  # looks at both ends of the jobs: damage there is mended now
    store.highest_id()
    recorded, jobs = store.setting("upstream"), store.counts().jobs + store.to_be_put_back()
    if recorded not in (None, upstream) and jobs and not adopt:
        raise StartError(
            f"journal {store.directory} holds {jobs:,} jobs for {recorded}, upstream is {upstream}; "
            "use another SIDECAR_JOURNAL_DIR or --adopt-journal"
        )
    if recorded is None and jobs:
        log.warning(
            "journal_upstream_unknown", message=f"The journal's upstream isn't recorded: taking it for {upstream}"
        )
    if recorded != upstream:
        store.set_setting("upstream", upstream)
    while found := questions.flagged(store):
        if questions.put_back(store, found, store.highest_id() + 1) is None:
            return
        store.checkpoint(truncate=False)


def _open_sound(directory: Path, prepare: Callable[[Store], None]) -> tuple[Store, Recovery]:
    store: Store | None = None
    try:
        store = Store(directory)
        store.counts()
        prepare(store)
        return store, Recovery()
    except BaseException as error:
        if store is not None:
            store.close()
        if not isinstance(error, Damaged) and not (isinstance(error, sqlite3.DatabaseError) and is_damage(error)):
            raise
        damage = str(error)
    store, recovery = rebuild(directory, damage)
    prepare(store)
    return store, recovery


def _look_at_wal(directory: Path) -> str | None:
    """What is wrong with the WAL; None when nothing is, or only its unfinished end.

    SQLite deletes a WAL, without a word, whose database is empty or gone.
    """
    try:
        content = (directory / f"{DB_NAME}-wal").read_bytes()
    except FileNotFoundError:
        return None
    found = scan(content)
    database = directory / DB_NAME
    if found.frames and not (database.exists() and database.stat().st_size):
        return f"the database is empty, beside {found.frames:,} pages in its write-ahead log"
    return found.damage


def rebuild(directory: Path, reason: str) -> tuple[Store, Recovery]:
    """Copies the damaged files aside and builds the journal anew from what can be read.

    Raises:
        NewerFormat: it isn't damaged.
        OSError, sqlite3.Error: the disk refuses.
    """
    aside, size = _copy_aside(directory)
    for suffix in _WITH_DB:
        (directory / f"{NEW_NAME}{suffix}").unlink(missing_ok=True)
    Store(directory, name=NEW_NAME).close()
    first_page = (directory / NEW_NAME).read_bytes()[:PAGE_BYTES]
    new = Store(directory, name=NEW_NAME)
    try:
        salvaged = carry_over(directory, new, first_page)
        new.checkpoint(truncate=True)
    finally:
        new.close()
    os.rename(directory / NEW_NAME, directory / REBUILT_NAME)
    sync_directory(directory)
    _finish_rebuild(directory)
    recovery = Recovery(
        damaged=salvaged.damaged,
        earlier=salvaged.earlier,
        unknown_bytes=min(salvaged.unknown_bytes, size),
        set_aside=aside,
    )
    older = f" ({salvaged.earlier:,} of them from an earlier state: they may be in Faktory already)"
    log.error(
        "journal_damaged",
        message=(
            f"The journal was damaged ({reason}): {salvaged.jobs:,} jobs and {salvaged.dead:,} dead letters carried "
            f"over{older * bool(salvaged.earlier)}, {salvaged.damaged:,} damaged rows set aside, "
            f"at most {recovery.unknown_bytes:,} bytes unknown; "
            f"the files as they were: {aside or 'could not be copied'}"
        ),
        jobs=salvaged.jobs,
        damaged=salvaged.damaged,
        unknown_bytes=recovery.unknown_bytes,
    )
    return Store(directory), recovery


def _copy_aside(directory: Path) -> tuple[Path | None, int]:
    """Copies of database and WAL in a directory of their own; None when the disk has no room for them."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = directory / f"damaged-{stamp}"
    size = 0
    try:
        aside.mkdir()
        for name in (DB_NAME, f"{DB_NAME}-wal"):
            if (directory / name).exists():
                size += (directory / name).stat().st_size
                shutil.copyfile(directory / name, aside / name)
        sync_directory(directory)
    except OSError as error:
        log.error("journal_copy_failed", message=f"The damaged files could not be copied to {aside}: {error}")
        shutil.rmtree(aside, ignore_errors=True)
        return None, size
    return aside, size


def _finish_rebuild(directory: Path) -> None:
    """Puts a complete new database in the place of the damaged one."""
    if not (directory / REBUILT_NAME).exists():
        return
    for suffix in _WITH_DB[::-1]:  # the WAL of the old one must never meet the new one
        (directory / f"{DB_NAME}{suffix}").unlink(missing_ok=True)
    sync_directory(directory)
    os.rename(directory / REBUILT_NAME, directory / DB_NAME)
    sync_directory(directory)
