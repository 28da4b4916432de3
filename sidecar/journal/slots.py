"""A journal directory for each `run` that goes on at a time: the first free one of a numbered few.

A journal has one owner, and cron jobs overlap. What a `run` could not deliver stays in its directory, and leaves with
the next `run` or `serve` that finds it there.
"""

from __future__ import annotations

import fcntl
import glob
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sidecar.errors import StartError
from sidecar.journal.probe import look
from sidecar.journal.schema import DB_NAME

SLOT_NAME: Final = "slot"
MAX_SLOTS: Final = 1_000  # a thousand runs at a time on one machine are a mistake, not a load


@contextmanager
def free_slot(directory: Path) -> Iterator[Path]:
    """The first of `directory.run-1`, `directory.run-2`, ... that no other `run` has, kept until the context ends.

    Raises:
        StartError: none can be had.
    """
    for number in itertools.count(1):
        slot = directory.with_name(f"{directory.name}.run-{number}")
        try:
            slot.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(slot / SLOT_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StartError(f"journal {slot} can't be used: {reason}; set SIDECAR_JOURNAL_DIR") from error
        try:
            if _locked(descriptor):
                yield slot
                return
        finally:
            os.close(descriptor)
        if number == MAX_SLOTS:
            raise StartError(f"{MAX_SLOTS:,} runs have journals beside {directory}; set SIDECAR_JOURNAL_DIR")


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
    return said


def _has_journal(directory: Path) -> bool:
    try:
        (directory / DB_NAME).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # may be, and whoever opens it is told what is wrong
    return True


@contextmanager
def claimed(slot: Path) -> Iterator[bool]:
    """Keep a slot from others until the context ends; False when somebody has it.

    Raises:
        OSError: it can't be had.
    """
    descriptor = os.open(slot / SLOT_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
