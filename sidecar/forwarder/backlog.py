"""The jobs whose payload is only in the journal: what memory doesn't hold of a long queue.

The invariant: while there is a backlog, its rows are exactly the unsettled ones with an id above `_cursor`, but for
those in `_ahead`; new jobs join it, so that the order of acknowledgement stays. It is read back in pages as the
batcher runs low. The jobs that a barrier waits for are fetched by id, ahead of all others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec
import trio

from sidecar.batching import Batcher, Entry
from sidecar.journal import Journal, Row
from sidecar.origins import Epoch

PAGE_ROWS = 1_000
"""Rows read at once: a few milliseconds of the writer thread."""


class _Jid(msgspec.Struct):
    jid: str


_jid = msgspec.json.Decoder(_Jid)


class Backlog:
    """Pages jobs between the journal and the batcher.

    Args:
        room: bytes of memory that waiting jobs may take before new ones stay in the journal only.
        arrived: called after jobs were read back into the batcher.
        missing: called with the number of jobs that could not be read back (set aside as damaged by the journal).
    """

    def __init__(
        self,
        batcher: Batcher,
        journal: Journal,
        *,
        room: int,
        arrived: Callable[[], object],
        missing: Callable[[int], None],
    ) -> None:
        self._batcher = batcher
        self._journal = journal
        self._room = room
        self._arrived = arrived
        self._missing = missing
        self._cursor = 0
        self._ahead: set[int] = set()
        self._wanted: deque[tuple[Epoch, list[int]]] = deque()
        self._epochs: dict[int, Epoch] = {}
        self._orphans = Epoch(0)  # the jobs of an earlier run, whose origins are gone
        self._work = trio.Event()
        self.jobs = journal.waiting
        """Jobs that are only in the journal, but for those being fetched ahead."""
        self._orphans.unsettled = self.jobs

    def takes(self, entries: Sequence[Entry]) -> bool:
        """True when these new jobs stay in the journal only: memory is full, or others wait there already."""
        if not self.jobs:
            if self._batcher.memory < self._room:
                return False
            self._cursor = entries[0].id - 1
        for entry in entries:
            epoch = entry.epoch
            epoch.add_cold(entry.id)
            self._epochs[epoch.number] = epoch
        self.jobs += len(entries)
        return True

    def requeued(self, ids: Sequence[int]) -> None:
        """Jobs appeared in the journal by other hands: dead letters that are to be tried again."""
        self._orphans.unsettled += len(ids)
        self._ahead.update(ids)
        self._wanted.append((self._orphans, list(ids)))
        self._work.set()

    def promote(self, epoch: Epoch) -> None:
        """Fetch what this epoch has in the journal only, ahead of all others."""
        if ids := epoch.take_cold():
            self._epochs.pop(epoch.number, None)
            self._ahead.update(ids)
            self._wanted.append((epoch, ids))
            self.jobs -= len(ids)
            self._work.set()

    def check(self) -> None:
        """Read on if the batcher runs low."""
        if self.jobs and self._low():
            self._work.set()

    async def run(self) -> None:
        """Read back what is wanted, until cancelled."""
        while True:
            if self._wanted:
                await self._fetch_ahead()
            elif self.jobs and self._low():
                await self._read_page()
            else:
                self._work = trio.Event()
                await self._work.wait()

    def _low(self) -> bool:
        return self._batcher.memory < self._room // 2

    async def _fetch_ahead(self) -> None:
        epoch, ids = self._wanted.popleft()
        if len(ids) > PAGE_ROWS:
            self._wanted.appendleft((epoch, ids[PAGE_ROWS:]))
            del ids[PAGE_ROWS:]
        rows = await self._journal.fetch(ids)
        self._batcher.offer_urgent([_entry(row, epoch) for row in rows])
        self._count_missing(epoch, len(ids) - len(rows))
        self._arrived()

    async def _read_page(self) -> None:
        rows = await self._journal.read(self._cursor, PAGE_ROWS)
        if not rows:
            self._give_up_rest()
            return
        self._cursor = rows[-1].id
        entries: list[Entry] = []
        found: Counter[int] = Counter()
        for row in rows:
            if row.id in self._ahead:
                continue
            epoch = self._epochs.get(row.origin, self._orphans)
            found[epoch.number] += 1
            entries.append(_entry(row, epoch))
        self.jobs -= found[0]
        for epoch in list(self._epochs.values()):
            expected = epoch.read_back_to(self._cursor)
            self.jobs -= expected
            self._count_missing(epoch, expected - found[epoch.number])
            if epoch.cold is None:
                del self._epochs[epoch.number]
        if self._ahead:
            self._ahead = {job_id for job_id in self._ahead if job_id > self._cursor}
        self._batcher.offer(entries, linger=False)
        self._arrived()

    def _give_up_rest(self) -> None:
        """Nothing is left to read, but jobs are counted: the journal set them aside."""
        for epoch in self._epochs.values():
            ids = len(epoch.take_cold())
            self.jobs -= ids
            self._count_missing(epoch, ids)
        self._epochs.clear()
        self._count_missing(self._orphans, self.jobs)
        self.jobs = 0

    def _count_missing(self, epoch: Epoch, jobs: int) -> None:
        if jobs > 0:
            self._missing(jobs)
            epoch.settle(jobs)


def _entry(row: Row, epoch: Epoch) -> Entry:
    return Entry(
        id=row.id,
        payload=row.payload,
        jid=_jid.decode(row.payload).jid,
        epoch=epoch,
        stored=True,
        tries=row.attempts,
    )
