"""A journal directory for each `run` that goes on at a time: the first free one of a numbered few.

A journal has one owner, and cron jobs overlap. What a `run` could not deliver stays in its directory, and leaves with
the next `run` that gets it.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sidecar.errors import StartError

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


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
