"""Jobs that upstream refuses while it accepts others: they wait here for another try, and nobody waits for them.

Of a stored job only the id is kept; its payload is read back for each try. A try is a command of its own, one page at a
time, while the link is well. How often a job has counted as refused is noted in the journal, so that after a restart it
is here again as soon as it is read.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import msgspec
import trio

from sidecar.forwarder.batching import Batcher
from sidecar.jobs import Entry, Epoch, Trouble
from sidecar.journal import Journal, Row

FIRST_PAUSE, PAUSE = 10.0, 60.0
"""Seconds before the first and each further try: a store in trouble of unheard-of words may be well by then."""
STEP = 1.0
"""Seconds between two pages."""
PAGE_JOBS = 100
"""Jobs tried at once."""
APART_MAX = 100_000
"""Jobs that may wait apart, some 100 bytes of memory each: so many are no single jobs any more, and the link waits."""


class _Group(msgspec.Struct):
    """Jobs that are due at the same second; of the stored ones the ids."""

    due: float
    counted_at: float
    delivered: int
    ids: array[int]
    entries: list[Entry]


class Apart:
    """Keeps jobs apart, and tries them again.

    Args:
        may_try: whether the link is up, and makes no pause.
        arrived: called after jobs were given to the batcher.
        missing: called with the number of jobs that could not be read back (set aside as damaged by the journal).

    Attributes:
        jobs: how many are apart, those that are being tried included.
        text: what upstream said of the latest.
        nobody: the epoch of jobs that nobody waits for.
    """

    def __init__(
        self,
        batcher: Batcher,
        journal: Journal | None,
        *,
        may_try: Callable[[], bool],
        arrived: Callable[[], object],
        missing: Callable[[int], None],
    ) -> None:
        self._batcher = batcher
        self._journal = journal
        self._may_try = may_try
        self._arrived = arrived
        self._missing = missing
        self._groups: dict[tuple[int, int], _Group] = {}
        self._trying = 0
        self._reading: Sequence[int] = ()  # those that are being read back
        self._hurried = False
        self._wanted = trio.Event()
        self.jobs = 0
        self.text = ""
        self.nobody = Epoch(0)

    @property
    def owed(self) -> int:
        """Jobs that are being tried, or will be once more before the end."""
        return self._trying + sum(_size(group) for group in self._groups.values() if not group.due)

    @property
    def room(self) -> int:
        """How many more may come."""
        return APART_MAX - self.jobs

    def ids(self) -> set[int]:
        """The stored jobs that are nowhere else in memory."""
        return {*self._reading, *(number for group in self._groups.values() for number in group.ids)}

    def left(self) -> list[Entry]:
        """The jobs that are nowhere else, not even in the journal."""
        return [entry for group in self._groups.values() for entry in group.entries]

    def put(self, entries: Sequence[Entry], now: float) -> list[Entry]:
        """Keep jobs whose trouble says so; returns those that were not apart before, for those who waited for them."""
        new: list[Entry] = []
        for entry in entries:
            assert entry.trouble is not None
            if entry.epoch is self.nobody:
                self._trying -= 1
                pause = PAUSE
            else:
                new.append(entry)
                pause = FIRST_PAUSE
            group = self._group(now + pause, entry.trouble)
            if entry.stored:
                group.ids.append(entry.id)
            else:
                group.entries.append(entry)
        self._count(len(new))
        return new

    def adopt(self, rows: Sequence[Row], now: float) -> None:
        """Keep stored jobs of an earlier run that have been apart already."""
        due = 0.0 if self._hurried else now + FIRST_PAUSE
        for row in rows:
            self._group(due, Trouble(counted_at=now)).ids.append(row.id)
        self._count(len(rows))

    def gone(self, entries: Sequence[Entry]) -> None:
        """Those of these settled jobs that were apart are no longer."""
        for entry in entries:
            if entry.epoch is self.nobody:
                self.jobs -= 1
                self._trying -= 1

    def hurry(self) -> None:
        """The end is near: all that are apart now, or are read back as such, are tried once more."""
        self._hurried = True
        for group in self._groups.values():
            group.due = 0.0
        self._groups = {(0, place): group for place, group in enumerate(self._groups.values())}
        self._wanted.set()

    async def run(self) -> None:
        """Try what is due, until cancelled."""
        while True:
            now = trio.current_time()
            if not self._trying and self._may_try():
                await self._try(now)
            due = min((group.due for group in self._groups.values()), default=float("inf"))
            self._wanted = trio.Event()
            with trio.move_on_at(max(due, now + STEP)):
                await self._wanted.wait()

    def _group(self, due: float, trouble: Trouble) -> _Group:
        key = (int(due), int(trouble.counted_at))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(due, trouble.counted_at, trouble.delivered, array("q"), [])
            self._wanted.set()
        group.counted_at = max(group.counted_at, trouble.counted_at)
        group.delivered = max(group.delivered, trouble.delivered)
        return group

    def _count(self, new: int) -> None:
        self.jobs += new
        self.nobody.unsettled += new

    async def _try(self, now: float) -> None:
        key = next((key for key, group in self._groups.items() if group.due <= now), None)
        if key is None:
            return
        group = self._groups[key]
        entries, ids = group.entries[:PAGE_JOBS], group.ids[:PAGE_JOBS]
        del group.entries[:PAGE_JOBS], group.ids[:PAGE_JOBS]
        if not _size(group):
            del self._groups[key]
        self._trying += len(entries) + len(ids)
        self._reading = ids
        if ids and self._journal is not None:
            try:
                rows, left = await self._journal.fetch(sorted(ids))
            except Exception:
                self._groups.setdefault(key, group).ids.extend(ids)
                self._groups[key].entries.extend(entries)
                self._trying -= len(entries) + len(ids)
                raise
            lost = len(ids) - len(left) - len(rows)
            if left:
                self._groups.setdefault(key, group).ids.extend(left)
                self._trying -= len(left)
            entries += [self._read_back(row, group) for row in rows]
            if lost:
                self.jobs -= lost
                self._trying -= lost
                self._missing(lost)
        self._reading = ()
        self._batcher.offer_apart(entries)
        self._arrived()

    def _read_back(self, row: Row, group: _Group) -> Entry:
        trouble = Trouble(apart=True, tries=row.attempts, counted_at=group.counted_at, delivered=group.delivered)
        return entry_of(row, jid_of(row.payload), self.nobody, trouble)


class _Jid(msgspec.Struct):
    jid: str


_jid = msgspec.json.Decoder(_Jid)


def jid_of(payload: bytes) -> str:
    """The jid of a job that was taken.

    Raises:
        msgspec.DecodeError, UnicodeError: it is no job, whoever wrote it.
    """
    return _jid.decode(payload).jid


def entry_of(row: Row, jid: str, epoch: Epoch, trouble: Trouble | None = None) -> Entry:
    """A stored job that was read back."""
    return Entry(row.id, row.payload, jid, epoch, 0.0, None, True, False, False, False, trouble)


def _size(group: _Group) -> int:
    return len(group.ids) + len(group.entries)
