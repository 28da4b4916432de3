"""The self-audit: whether somebody here knows each job that the journal holds.

A job that is stored and that nobody knows would wait until the next start. Whatever the defect, it is found here: the
journal's ids are read page by page, a page a second while little goes on, and compared with every place that a job can
be in.

A row is unknown only if the event loop had heard of its id before the page was asked for, and it was in no lane, in no
flight, not parked, not in the backlog and not among the deletions that aren't confirmed; the same twice in a row. While
the journal's disk is in trouble nothing is judged.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import msgspec
import trio

from sidecar.forwarder.idranges import includes
from sidecar.journal import Journal
from sidecar.logs import get_logger

EVERY = 1.0
"""Seconds between two pages."""
PAGE = 10_000
"""Ids in a page: some 5 ms of the journal's thread."""
BUSY = 200
"""Jobs stored and delivered since the last page above which the audit waits; but no longer than `MOST_WAITS` times."""
MOST_WAITS = 30

log = get_logger()


class Known(msgspec.Struct):
    """The stored jobs that somebody knows: single ids, rising ranges of them, and long sequences that each rise."""

    ids: set[int]
    ranges: Sequence[range] = ()
    sequences: Sequence[Sequence[int]] = ()

    def includes(self, number: int) -> bool:
        """Whether this job is among them."""
        return number in self.ids or includes(self.ranges, number) or any(_has(each, number) for each in self.sequences)


class Audit:
    """Compares the journal with what is known, for as long as it runs.

    Args:
        known: all stored jobs that somebody knows right now.
        delivered: a number that grows with each delivered job.
        recover: takes the ids of unknown jobs: they are to be sent.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        known: Callable[[], Known],
        delivered: Callable[[], int],
        recover: Callable[[Sequence[int]], None],
    ) -> None:
        self._journal = journal
        self._known = known
        self._delivered = delivered
        self._recover = recover
        self._after = 0
        self._suspects: frozenset[int] = frozenset()
        self._progress = 0
        self._waits = 0

    async def run(self) -> None:
        """Look at a page a second, until cancelled."""
        while True:
            await trio.sleep(EVERY)
            if not self._busy():
                await self.look()

    def _busy(self) -> bool:
        before, self._progress = self._progress, self._journal.last_id + self._delivered()
        busy = self._progress - before > BUSY and self._waits < MOST_WAITS
        self._waits = self._waits + 1 if busy else 0
        return busy

    async def look(self) -> None:
        """Compare the next page; the same one again if there is something unknown in it."""
        self._journal.hear()
        if self._journal.broken:
            self._suspects = frozenset()
            return
        heard, before = self._journal.last_id, self._known()
        page = await self._journal.ids(self._after, heard, PAGE)
        unknown = [number for number in page if not before.includes(number)]
        if unknown:
            now = self._known()
            unknown = [number for number in unknown if not now.includes(number)]
        if self._journal.broken:
            unknown = []
        twice = [number for number in unknown if number in self._suspects]
        self._suspects = frozenset(unknown).difference(twice)
        if twice:
            await self._found(twice)
        elif not unknown:
            self._after = page[-1] if len(page) == PAGE else 0

    async def _found(self, ids: list[int]) -> None:
        log.error(
            "journal_jobs_unknown",
            message=(
                f"{len(ids):,} jobs in the journal were known to nobody, by a defect: they are sent now, and may have "
                "been sent before; please report it with the log"
            ),
            jobs=len(ids),
            first_id=ids[0],
        )
        self._recover(ids)
        await self._journal.recount()


def _has(rising: Sequence[int], number: int) -> bool:
    place = bisect_left(rising, number)
    return place < len(rising) and rising[place] == number
