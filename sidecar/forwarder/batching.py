"""Which jobs leave together, and when. Pure: no clock, no I/O; the caller says what time it is.

Jobs wait in lanes of falling urgency:

1.  *pieces*: batches that upstream refused whole or that killed the link, split, and jobs that waited apart from all
    others; each leaves as it is.
2.  *again*: jobs that were sent once and came back, in their old order.
3.  *urgent*: jobs that a barrier or a confirmed reply waits for.
4.  *waiting*: all others, in the order of acknowledgement. Only these linger.

A batch ends when it is full (jobs or bytes), before a job whose jid it already holds (upstream's reply is a map by
jid), and around a *single*: a job that must travel as a `PUSH` of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.jobs import ENTRY_OVERHEAD, Entry, Epoch, Place


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs that leave in one command of `size` bytes; `reason` is why now: `full`, `timeout` or `asked`.

    When it was sent, upstream had accepted `delivered` jobs.
    """

    entries: list[Entry]
    reason: str
    single: bool = False
    alone: bool = False
    """Nothing else may be in flight with it: it is suspected of killing the link."""
    sent_at: float = 0.0
    delivered: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full or due. Jobs; bytes of JSON; seconds."""

    jobs: int
    size: int
    linger: float


class Batcher:
    """The lanes.

    Args:
        limits: of one batch.

    Attributes:
        jobs: how many wait here, in all lanes.
        hot_bytes: their JSON, in bytes.
        max_jobs: of a batch now; the forwarder halves it when upstream runs out of time, and grows it back.
        linger: seconds, `limits.linger` unless the forwarder shortens it.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.max_jobs = limits.jobs
        self.linger = limits.linger
        self.jobs = 0
        self.hot_bytes = 0
        self._pieces: deque[Batch] = deque()
        self._again: deque[Entry] = deque()
        self._urgent: deque[Entry] = deque()
        self._waiting: deque[Entry] = deque()
        self._gone = 0  # entries in _waiting that are elsewhere by now
        self._asked_to = 0  # no entry up to this id lingers

    @property
    def memory(self) -> int:
        """Bytes of memory that the waiting jobs hold, about."""
        return self.hot_bytes + self.jobs * ENTRY_OVERHEAD

    @property
    def full(self) -> bool:
        """Whether there may be enough for a batch that needs no company."""
        return self.jobs >= self.max_jobs or self.hot_bytes >= self.limits.size

    @property
    def oldest(self) -> float | None:
        """When the job that has waited here for longest was offered; None: none waits, or none of them knows."""
        heads = [
            _head(self._again, Place.AGAIN),
            _head(self._urgent, Place.URGENT),
            self._first_waiting(),
            *(batch.entries[0] for batch in self._pieces),
        ]
        return min((entry.at for entry in heads if entry is not None and entry.at), default=None)

    def offer(self, entries: Sequence[Entry], *, linger: bool = True) -> None:
        """Add jobs behind all others; their ids rise. Without linger, they and all before them are due at once."""
        if not entries:
            return
        size, waiting = 0, int(Place.WAITING)
        for entry in entries:
            entry.place = waiting
            entry.epoch.unsent.append(entry)
            size += len(entry.payload)
        self._waiting.extend(entries)
        self.jobs += len(entries)
        self.hot_bytes += size
        if not linger:
            self._asked_to = entries[-1].id

    def offer_urgent(self, entries: Sequence[Entry]) -> None:
        """Add jobs that somebody waits for: ahead of the waiting ones, behind other urgent ones."""
        self._put(self._urgent, entries, Place.URGENT)

    def promote(self, epoch: Epoch) -> None:
        """Move an epoch's waiting jobs to the urgent lane, in their order."""
        while epoch.unsent:
            entry = epoch.unsent.popleft()
            entry.place = Place.URGENT
            self._gone += 1
            self._urgent.append(entry)

    def give_back(self, entries: Sequence[Entry]) -> None:
        """Jobs that were sent and must be sent again, in their old order, before all that waits."""
        if not entries:
            return
        if not self._again or entries[0].id > self._again[-1].id:
            self._put(self._again, entries, Place.AGAIN)
            return
        later = self._again
        self._again = deque()
        self._put(self._again, entries, Place.AGAIN)
        self._again.extend(later)

    def split(self, batch: Batch, *, alone: bool) -> None:
        """Put a batch back as two halves that leave as they are; a batch of one leaves by itself."""
        middle = max(1, len(batch.entries) // 2)
        for part in (batch.entries[middle:], batch.entries[:middle]):
            if part:
                for entry in part:
                    entry.place = Place.PIECES
                    self.hot_bytes += len(entry.payload)
                self.jobs += len(part)
                self._pieces.appendleft(Batch(part, "asked", single=batch.single, alone=alone))

    def offer_apart(self, entries: Sequence[Entry]) -> None:
        """Add jobs in pieces of their own, so that no other job shares a command with them."""
        piece: list[Entry] = []
        size, jids = 0, set[str]()
        for entry in entries:
            size += len(entry.payload) + 1
            full = len(piece) >= self.max_jobs or size > self.limits.size
            if piece and (full or entry.jid in jids or entry.single or piece[0].single):
                self._add_piece(piece)
                piece, size, jids = [], len(entry.payload) + 1, set()
            piece.append(entry)
            jids.add(entry.jid)
        if piece:
            self._add_piece(piece)

    def _add_piece(self, piece: list[Entry]) -> None:
        for entry in piece:
            entry.place = Place.PIECES
            self.hot_bytes += len(entry.payload)
        self.jobs += len(piece)
        self._pieces.append(Batch(piece, "asked", single=piece[0].single))

    def ask(self) -> None:
        """End the linger of all that waits now."""
        if self._waiting:
            self._asked_to = self._waiting[-1].id

    def drop(self, entry: Entry) -> bool:
        """Take a job out that was not sent; False when it is on its way already."""
        if entry.place >= Place.SENT:
            return False
        if entry.place == Place.PARKED:
            entry.place = Place.DROPPED
            return True
        if entry.place == Place.WAITING:
            entry.epoch.unsent.remove(entry)
            self._gone += 1
        entry.place = Place.DROPPED
        self.jobs -= 1
        self.hot_bytes -= len(entry.payload)
        return True

    def due(self) -> float | None:
        """When the next batch is to leave (seconds of the caller's clock; 0: at once), None: nothing waits."""
        if self._pieces or _head(self._again, Place.AGAIN) or _head(self._urgent, Place.URGENT):
            return 0.0
        first = self._first_waiting()
        if first is None:
            return None
        full = len(self._waiting) - self._gone >= self.max_jobs or self.hot_bytes >= self.limits.size
        if full or first.single or first.id <= self._asked_to:
            return 0.0
        return first.at + self.linger

    def take(self, now: float) -> Batch | None:
        """The next batch if one is due, its jobs marked as sent."""
        while self._pieces:
            batch = self._take_piece()
            if batch.entries:
                return batch
        due = self.due()
        if due is None or due > now:
            return None
        asked = bool(self._again or self._urgent)
        entries: list[Entry] = []
        full = self._collect(entries)
        asked = asked or entries[0].id <= self._asked_to
        reason = "full" if full else "asked" if asked else "timeout"
        return Batch(entries, reason, single=entries[0].single)

    def next_is_alone(self) -> bool:
        """True when the next batch must travel with nothing else in flight."""
        return bool(self._pieces) and self._pieces[0].alone

    def left(self) -> list[Entry]:
        """All that wait here, in no order; it looks at each: for the end, and for a calm hour."""
        lanes = ((self._again, Place.AGAIN), (self._urgent, Place.URGENT), (self._waiting, Place.WAITING))
        found = [entry for lane, place in lanes for entry in lane if entry.place == place]
        return found + [entry for batch in self._pieces for entry in batch.entries if entry.place == Place.PIECES]

    def _put(self, lane: deque[Entry], entries: Sequence[Entry], place: Place) -> None:
        for entry in entries:
            entry.place = place
            self.hot_bytes += len(entry.payload)
        lane.extend(entries)
        self.jobs += len(entries)

    def _first_waiting(self) -> Entry | None:
        """The head of the waiting lane."""
        waiting = self._waiting
        while waiting and waiting[0].place != Place.WAITING:
            waiting.popleft()
            self._gone -= 1
        return waiting[0] if waiting else None

    def _take_piece(self) -> Batch:
        batch = self._pieces.popleft()
        batch.entries = [entry for entry in batch.entries if entry.place == Place.PIECES]
        for entry in batch.entries:
            entry.place = Place.SENT
            self.hot_bytes -= len(entry.payload)
        self.jobs -= len(batch.entries)
        return batch

    def _collect(self, entries: list[Entry]) -> bool:
        """Fill `entries` from the lanes in order; True when the batch ended because it was full."""
        jids: set[str] = set()
        size = 0
        for lane, place in ((self._again, 2), (self._urgent, 1), (self._waiting, 0)):
            while (entry := _head(lane, place) if place else self._first_waiting()) is not None:
                size += len(entry.payload) + 1
                if entries and (size > self.limits.size or entry.jid in jids or entry.single or entries[0].single):
                    return True
                lane.popleft()
                if not place:
                    entry.epoch.unsent.popleft()
                entry.place = 4
                self.jobs -= 1
                self.hot_bytes -= len(entry.payload)
                entries.append(entry)
                jids.add(entry.jid)
                if len(entries) >= self.max_jobs:
                    return True
        return False


def _head(lane: deque[Entry], place: int) -> Entry | None:
    while lane and lane[0].place != place:
        lane.popleft()
    return lane[0] if lane else None
