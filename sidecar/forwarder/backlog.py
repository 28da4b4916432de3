"""The jobs whose payload is only in the journal: what memory doesn't hold of a long queue.

The invariant: a job is in the backlog if and only if it is left from an earlier run and above `_cursor`, or it is
*listed* and not promoted. The journal holds other rows above the cursor too: of jobs in flight or parked behind a
`FLUSH`, which a page therefore leaves out. New jobs join a backlog, so that the order of acknowledgement stays. It is
read back in pages as the batcher runs low; the jobs that a barrier waits for are fetched by id, ahead of all others.

An epoch knows its own jobs for as long as its origin lives. A job whose origin is gone, of a connection that was
closed or a request that was answered, costs no memory here: nobody can wait for it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import msgspec
import trio

from sidecar.forwarder.apart import entry_of, jid_of
from sidecar.forwarder.audit import Known
from sidecar.forwarder.batching import Batcher
from sidecar.forwarder.idranges import IdRanges, includes
from sidecar.jobs import ENTRY_OVERHEAD, Entry, Epoch
from sidecar.journal import Journal, Row

PAGE_ROWS = 1_000
"""Rows read at once: a few milliseconds of the writer thread."""


class Backlog:
    """Pages jobs between the journal and the batcher.

    Args:
        room: bytes of memory that jobs may take, waiting and on their way, before new ones stay in the journal only.
        in_flight: tells how many bytes are on their way.
        arrived: called after jobs were read back into the batcher.
        missing: called with the number of jobs that could not be read back (set aside as damaged by the journal).
        apart: takes jobs of an earlier run that were tried already: they wait apart.
    """

    def __init__(
        self,
        batcher: Batcher,
        journal: Journal,
        *,
        room: int,
        in_flight: Callable[[], int],
        arrived: Callable[[], object],
        missing: Callable[[int], None],
        apart: Callable[[Sequence[Row]], None],
    ) -> None:
        self._batcher = batcher
        self._journal = journal
        self._apart = apart
        self._room = room
        self._in_flight = in_flight
        self._arrived = arrived
        self._missing = missing
        self._cursor = 0
        self._listed = IdRanges()
        self._promoted: dict[int, array[int]] = {}  # by epoch: ids that are listed, and fetched ahead
        self._wanted: deque[tuple[Epoch, Sequence[int]]] = deque()
        self._coming = 0  # promoted jobs that are not in the batcher yet
        self._epochs: WeakValueDictionary[int, Epoch] = WeakValueDictionary()
        self._orphans = Epoch(0)  # the jobs whose origins are gone
        self._orphans_to = journal.last_id  # the highest id of an earlier run
        self._passed = (
            not journal.waiting
        )  # the cursor has: then no job of an earlier run is left, whatever was counted
        self._miscounted = False
        self._work = trio.Event()
        self.jobs = journal.waiting
        """Jobs that are only in the journal, but for those being fetched ahead."""
        self._orphans.unsettled = self._orphans_left = self.jobs
        self.unsendable: set[int] = set()
        """Ids of jobs that are sound and yet no jobs."""

    def takes(self, entries: Sequence[Entry]) -> bool:
        """True when these new jobs stay in the journal only: memory has no room, or others wait there already."""
        if entries[0].id <= self._cursor:
            return False  # they were parked while the cursor passed them
        if not self._more:
            size = sum([len(entry.payload) for entry in entries]) + len(entries) * ENTRY_OVERHEAD
            if not self._coming and self._has_room(size):
                return False
            self._cursor = entries[0].id - 1
            self._listed, self._promoted = IdRanges(), {}
        hurried: list[Epoch] = []
        for entry in entries:
            epoch = entry.epoch
            self._listed.add(entry.id, 1)
            epoch.add_cold(entry.id)
            self._epochs[epoch.number] = epoch
            if epoch.hurried:
                hurried.append(epoch)
        self.jobs += len(entries)
        for epoch in hurried:
            self.promote(epoch)
        return True

    def requeued(self, ids: Sequence[int]) -> None:
        """Jobs appeared in the journal by other hands: dead letters that are to be tried again."""
        self._orphans.unsettled += len(ids)
        self._wanted.append((self._orphans, ids))
        self._work.set()

    def known(self) -> Known:
        """The jobs that are here, those that are being read back included."""
        ids = set(self.unsendable)
        long: list[Sequence[int]] = []
        for _, wanted in self._wanted:
            if len(wanted) > PAGE_ROWS:
                long.append(wanted)
            else:
                ids.update(wanted)
        left = range(self._cursor + 1, self._orphans_to + 1)
        return Known(ids, [*([left] if left else []), *self._listed.ranges()], long)

    def promote(self, epoch: Epoch) -> None:
        """Fetch what this epoch has in the journal only, ahead of all others."""
        if ids := epoch.take_cold():
            self._epochs.pop(epoch.number, None)
            before = self._promoted.get(epoch.number)
            self._promoted[epoch.number] = before + ids if before is not None else ids
            self._wanted.append((epoch, ids))
            self._coming += len(ids)
            self.jobs -= len(ids)
            self._work.set()

    def check(self) -> None:
        """Read on if the batcher runs low."""
        if self._may_fetch_ahead() or (self._more and self._low()):
            self._work.set()

    async def run(self) -> None:
        """Read back what is wanted, until cancelled."""
        while True:
            if self._may_fetch_ahead():
                await self._fetch_ahead()
            elif self._more and self._low():
                await self._read_page()
            else:
                self._work = trio.Event()
                await self._work.wait()

    @property
    def _more(self) -> bool:
        """Whether there is something to read; of an earlier run there may be more than was counted."""
        return self.jobs > 0 or not self._passed

    def _has_room(self, size: int = 0) -> bool:
        return self._batcher.memory + self._in_flight() + size < self._room

    def _low(self) -> bool:
        return self._has_room(self._room // 2)

    def _may_fetch_ahead(self) -> bool:
        return bool(self._wanted) and self._has_room()

    async def _fetch_ahead(self) -> None:
        epoch, wanted = self._wanted[0]
        ids = wanted[:PAGE_ROWS]
        found, left = await self._journal.fetch(ids)
        rows, odd = _sendable(found)
        self._wanted.popleft()
        if len(wanted) > len(ids) or left:
            self._wanted.appendleft((epoch, wanted[len(ids) - len(left) :]))
        looked = len(ids) - len(left)
        if epoch is not self._orphans:
            self._coming -= looked
        self._batcher.offer_urgent([entry_of(row, jid, epoch) for row, jid in rows])
        self._count_missing(epoch, looked - len(rows))
        self._arrived()
        await self._put_aside(odd)

    async def _read_page(self) -> None:
        stored_to = self._journal.last_id
        found = await self._journal.read(self._cursor, PAGE_ROWS)
        last = found[-1].id if found else stored_to
        rows, odd = _sendable(found)
        listed = self._listed.take_to(last)
        epochs = dict(self._epochs)
        missing = {number: len(epoch.read_back_to(last)) for number, epoch in epochs.items()}
        unread = sum(map(len, listed)) - sum(self._between(ids, last) for ids in self._promoted.values())
        self.jobs -= unread
        entries: list[Entry] = []
        tried: list[Row] = []
        for row, jid in rows:
            if row.id <= self._orphans_to:
                self._orphans_left -= 1
                self.jobs -= 1
                if row.attempts:
                    tried.append(row)
                else:
                    entries.append(entry_of(row, jid, self._orphans))
            elif row.origin not in self._promoted and includes(listed, row.id):
                unread -= 1
                entries.append(entry_of(row, jid, self._adopted(row, epochs, missing)))
        self._settle_missing(unread, epochs, missing)
        self._passed |= not found or last >= self._orphans_to
        if self._orphans_left < 0 or (self._passed and self._orphans_left):
            self._correct(self._orphans_left)
        self._forget_passed(epochs, last)
        if found:
            self._cursor = last
            self._batcher.offer(entries, linger=False)
        if tried:
            self._apart(tried)
        self._arrived()
        await self._put_aside(odd)
        if self._passed and self._miscounted:
            self._miscounted = False
            await self._journal.recount()

    def _correct(self, too_many: int) -> None:
        """So many fewer jobs of earlier runs are there than were counted; or more, where it is negative."""
        self._orphans_left = 0
        self._miscounted |= too_many != 0
        self.jobs -= too_many
        self._missing(too_many)
        self._orphans.settle(too_many)

    async def _put_aside(self, odd: list[int]) -> None:
        if odd:
            self.unsendable.update(odd)
            await self._journal.put_aside(odd)

    def _adopted(self, row: Row, epochs: dict[int, Epoch], missing: dict[int, int]) -> Epoch:
        """The epoch of a job that was read back."""
        epoch = epochs.get(row.origin)
        if epoch is None:
            self._orphans.unsettled += 1
            return self._orphans
        missing[row.origin] -= 1
        return epoch

    def _settle_missing(self, unread: int, epochs: dict[int, Epoch], missing: dict[int, int]) -> None:
        """So many listed jobs were not among the rows; those of `missing` are of epochs that still know them."""
        for number, jobs in missing.items():
            self._count_missing(epochs[number], jobs)
            unread -= jobs
        if unread > 0:
            self._missing(unread)

    def _forget_passed(self, epochs: dict[int, Epoch], last: int) -> None:
        """What the cursor has passed needs no place here any more."""
        for number, epoch in epochs.items():
            if epoch.cold is None:
                self._epochs.pop(number, None)
        self._promoted = {number: ids for number, ids in self._promoted.items() if ids[-1] > last}

    def _between(self, ids: Sequence[int], last: int) -> int:
        """How many of them are above the cursor and not above `last`."""
        return bisect_right(ids, last) - bisect_right(ids, self._cursor)

    def _count_missing(self, epoch: Epoch, jobs: int) -> None:
        if jobs > 0:
            self._missing(jobs)
            epoch.settle(jobs)


def _sendable(rows: Sequence[Row]) -> tuple[list[tuple[Row, str]], list[int]]:
    """The rows that are jobs, with their jids, and the ids of those that aren't, whoever wrote them."""
    good: list[tuple[Row, str]] = []
    odd: list[int] = []
    for row in rows:
        try:
            good.append((row, jid_of(row.payload)))
        except (msgspec.DecodeError, UnicodeError):
            odd.append(row.id)
    return good, odd
