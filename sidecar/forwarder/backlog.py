"""The jobs whose payload is only in the journal: what memory doesn't hold of a long queue.

The invariant: a job is in the backlog if and only if it is left from an earlier run and above `_cursor`, or its epoch
lists it as *cold*. The journal holds other rows above the cursor too: of jobs in flight or parked behind a `FLUSH`,
which a page therefore leaves out. New jobs join a backlog, so that the order of acknowledgement stays. It is read back
in pages as the batcher runs low; the jobs that a barrier waits for are fetched by id, ahead of all others.
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
        self._wanted: deque[tuple[Epoch, Sequence[int]]] = deque()
        self._epochs: dict[int, Epoch] = {}
        self._orphans = Epoch(0)  # the jobs of earlier runs, whose origins are gone
        self._orphans_to = journal.last_id  # their highest id
        self._work = trio.Event()
        self.jobs = journal.waiting
        """Jobs that are only in the journal, but for those being fetched ahead."""
        self._orphans.unsettled = self._orphans_left = self.jobs

    def takes(self, entries: Sequence[Entry]) -> bool:
        """True when these new jobs stay in the journal only: memory is full, or others wait there already."""
        if entries[0].id <= self._cursor:
            return False  # they were parked while the cursor passed them
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
        self._wanted.append((self._orphans, ids))
        self._work.set()

    def promote(self, epoch: Epoch) -> None:
        """Fetch what this epoch has in the journal only, ahead of all others."""
        if ids := epoch.take_cold():
            self._epochs.pop(epoch.number, None)
            self._wanted.append((epoch, ids))
            self.jobs -= len(ids)
            self._work.set()

    def check(self) -> None:
        """Read on if the batcher runs low."""
        if self._may_fetch_ahead() or (self.jobs and self._low()):
            self._work.set()

    async def run(self) -> None:
        """Read back what is wanted, until cancelled."""
        while True:
            if self._may_fetch_ahead():
                await self._fetch_ahead()
            elif self.jobs and self._low():
                await self._read_page()
            else:
                self._work = trio.Event()
                await self._work.wait()

    def _low(self) -> bool:
        return self._batcher.memory < self._room // 2

    def _may_fetch_ahead(self) -> bool:
        return bool(self._wanted) and self._batcher.memory < self._room

    async def _fetch_ahead(self) -> None:
        epoch, wanted = self._wanted.popleft()
        ids = wanted[:PAGE_ROWS]
        if len(wanted) > PAGE_ROWS:
            self._wanted.appendleft((epoch, wanted[PAGE_ROWS:]))
        rows = await self._journal.fetch(ids)
        self._batcher.offer_urgent([_entry(row, epoch) for row in rows])
        self._count_missing(epoch, len(ids) - len(rows))
        self._arrived()

    async def _read_page(self) -> None:
        stored_to = self._journal.last_id
        rows = await self._journal.read(self._cursor, PAGE_ROWS)
        listed = self._listed_to(rows[-1].id if rows else stored_to)
        entries: list[Entry] = []
        for row in rows:
            epoch = listed.pop(row.id, None)
            if row.id <= self._orphans_to:
                epoch = self._orphans
                self._orphans_left -= 1
                self.jobs -= 1
            if epoch is not None:
                entries.append(_entry(row, epoch))
        for epoch, jobs in Counter(listed.values()).items():
            self._count_missing(epoch, jobs)
        if not rows or rows[-1].id > self._orphans_to:
            self._count_missing(self._orphans, self._orphans_left)
            self.jobs -= self._orphans_left
            self._orphans_left = 0
        if rows:
            self._cursor = rows[-1].id
            self._batcher.offer(entries, linger=False)
        self._arrived()

    def _listed_to(self, job_id: int) -> dict[int, Epoch]:
        """The cold jobs up to this one, with their epochs; they are cold no longer."""
        listed: dict[int, Epoch] = {}
        for epoch in list(self._epochs.values()):
            listed.update(dict.fromkeys(epoch.read_back_to(job_id), epoch))
            if epoch.cold is None:
                del self._epochs[epoch.number]
        self.jobs -= len(listed)
        return listed

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
