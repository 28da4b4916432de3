"""What is left at the end: acknowledged jobs that were not settled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sidecar.jobs import Entry


class Left(NamedTuple):
    """Acknowledged jobs in memory.

    Args:
        gone: that were nowhere else and are not in Faktory.
        doubtful: that were nowhere else, and were sent without a reply: they may be in Faktory.
        stored_doubtful: the same of those that are in the journal, too.
    """

    gone: int = 0
    doubtful: int = 0
    stored_doubtful: int = 0


def left(entries: Iterable[Entry]) -> Left:
    """Count them; those with a verdict are no matter of ours: their producers were never told that all is well."""
    gone = doubtful = stored_doubtful = 0
    for entry in entries:
        if entry.verdict is None:
            gone += not (entry.stored or entry.doubtful)
            doubtful += entry.doubtful and not entry.stored
            stored_doubtful += entry.doubtful and entry.stored
    return Left(gone, doubtful, stored_doubtful)
