"""A journal directory for each `run` that goes on at a time: the first free one of a numbered few.

A journal has one owner, and cron jobs overlap. What a `run` could not deliver stays in its directory, and leaves with
the next `run` or `serve` that finds it there. One in which nothing is left is deleted.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sidecar.errors import StartError
from sidecar.journal.lock import LOCK_NAME, Lock
from sidecar.journal.place import saved_patterns
from sidecar.journal.probe import look
from sidecar.journal.schema import DB_NAME, WAL_NAME
from sidecar.journal.space import RESERVE_NAME, TRIAL_NAME
from sidecar.journal.visitor import Visitor
from sidecar.logs import get_logger

log = get_logger()

SLOT_NAME: Final = "slot"
MAX_SLOTS: Final = 1_000  # a thousand runs at a time on one machine are a mistake, not a load
_FILES: Final = (TRIAL_NAME, RESERVE_NAME, WAL_NAME, f"{DB_NAME}-shm", DB_NAME, LOCK_NAME, SLOT_NAME)
"""What a slot that was closed may consist of; the last names are what others lock."""


@contextmanager
def free_slot(directory: Path) -> Iterator[Path]:
    """The first of `directory.run-1`, `directory.run-2`, ... that no other `run` has, kept until the context ends.

    Raises:
        StartError: none can be had.
    """
    for number in itertools.count(1):
        slot = directory.with_name(f"{directory.name}.run-{number}")
        try:
            descriptor = _made_and_locked(slot)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StartError(f"journal {slot} can't be used: {reason}; set SIDECAR_JOURNAL_DIR") from error
        if descriptor is not None:
            try:
                yield slot
                discard_empty(slot)
                return
            finally:
                os.close(descriptor)
        if number == MAX_SLOTS:
            raise StartError(f"{MAX_SLOTS:,} runs have journals beside {directory}; set SIDECAR_JOURNAL_DIR")


def _made_and_locked(slot: Path) -> int | None:
    """The descriptor that holds a slot, which is made where it isn't there, or is being deleted; None: it is held."""
    slot.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):  # and it may be gone by the next line; `Path.mkdir` looks again, and complains
            os.mkdir(slot, 0o700)
        with suppress(FileNotFoundError):
            return _locked(slot)


def left_slots(directory: Path) -> list[Path]:
    """The directories of `run`s beside this one, or beside that of which this is one, in which there is a journal."""
    name = re.sub(r"\.run-\d+$", "", directory.name)
    beside = directory.parent.glob(f"{glob.escape(name)}.run-*")
    return sorted(path for path in beside if path != directory and _has_journal(path))


def said_of_left(directory: Path, identity: str | None) -> dict[Path, str]:
    """What is to be said of each of them that holds something.

    Args:
        identity: the upstream that they would be sent to; None: whatever that is.
    """
    said: dict[Path, str] = {}
    for slot in left_slots(directory):
        try:
            text = look(slot).left(slot, identity)
        except OSError as error:
            text = f"what a run left can't be read: {error.strerror}"
        if text is not None:
            said[slot] = text
    return said | said_of_saved(directory)


def said_of_saved(directory: Path) -> dict[Path, str]:
    """What is to be said of each copy that was saved of this journal, when its files were lost under the process.

    They are never sent by themselves: who puts the lost files back has all of it twice.
    """
    said: dict[Path, str] = {}
    for pattern in saved_patterns(directory):
        for copy in sorted(pattern.parent.glob(pattern.name)):
            try:
                text = look(copy).saved(copy) if _has_journal(copy) else None
            except OSError as error:
                text = f"a saved journal that can't be read: {error.strerror}"
            if text is not None:
                said[copy] = text
    return said


def _has_journal(directory: Path) -> bool:
    try:
        (directory / DB_NAME).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # may be, and whoever opens it is told what is wrong
    return True


def discard_empty(slot: Path) -> None:
    """Deletes a slot that this process holds, where a clean stop left nothing in it, and nobody anything else.

    Whoever is about to open it finds it gone, or changed under him, and makes it anew.
    """
    try:
        if not look(slot).nothing:
            return
        lock = Lock(slot)
        try:
            if lock.unclean or lock.replaced or not _is_empty(slot):
                return
            for name in _FILES:
                (slot / name).unlink(missing_ok=True)
            slot.rmdir()
        finally:
            lock.release(clean=not (lock.unclean or lock.replaced))
    except (OSError, StartError) as error:
        if getattr(error, "errno", 0) not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            log.debug("slot_stays", message=f"The empty journal {slot} stays: {error}")


def _is_empty(slot: Path) -> bool:
    if not {path.name for path in slot.iterdir()} <= set(_FILES):
        return False
    with Visitor(slot) as visitor:
        return visitor.is_empty()


@contextmanager
def claimed(slot: Path) -> Iterator[bool]:
    """Keep a slot from others until the context ends; False when somebody has it.

    Raises:
        OSError: it can't be had.
    """
    descriptor = _locked(slot)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(slot: Path) -> int | None:
    """The descriptor that holds a slot; None: somebody else does.

    Raises:
        FileNotFoundError: it was deleted by who held it.
        OSError: it can't be had.
    """
    path = slot / SLOT_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, "it was made anew", str(path))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor
