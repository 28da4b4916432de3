"""The end of each job: accepted, refused, or to be sent again; and what is counted until then.

A job is settled once. An acknowledged one leaves the journal by upstream's positive reply, or becomes a dead letter; a
confirmed one's producer is told upstream's words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import trio

from sidecar.batching import ENTRY_OVERHEAD, Entry, Place
from sidecar.forwarder.pacing import Pacing
from sidecar.journal import DeadLetter, Journal
from sidecar.logs import FloodLog, get_logger
from sidecar.metrics import Counts
from sidecar.protocol.replies import OK
from sidecar.upstream.refusals import Meaning, meaning, reply_line

SETTLE_BUFFER = 1_000
"""Jobs whose deletion from the journal may be under way: while it is full the link sends nothing more. Together with
what is in flight it bounds what a crash can send twice."""
UNKNOWN_TRIES = 5
"""Refusals with a text of unknown meaning after which a job is refused for good."""

log = get_logger()


class Settlement:
    """Settles jobs by upstream's word.

    Args:
        settled: called after jobs were settled.
        room: called when the settle buffer is no longer full.

    Attributes:
        unsettled: jobs taken and not settled, wherever they are.
        unstored_memory: bytes of memory that those of them hold which are nowhere else, about.
    """

    def __init__(
        self,
        journal: Journal | None,
        pacing: Pacing,
        counts: Counts,
        floods: FloodLog,
        *,
        settled: Callable[[], object],
        room: Callable[[], object],
    ) -> None:
        self._journal = journal
        self._pacing = pacing
        self._counts = counts
        self._floods = floods
        self._settled = settled
        self._room = room
        self._deleting = 0
        self.unsettled = journal.waiting if journal is not None else 0
        self.unstored_memory = 0

    @property
    def buffer_full(self) -> bool:
        """True while so many deletions are under way that nothing more may be sent."""
        return self._deleting >= SETTLE_BUFFER

    def take(self, entries: Sequence[Entry]) -> None:
        """These jobs are ours from now on."""
        self.unsettled += len(entries)
        if not entries[0].stored:
            self.unstored_memory += sum([len(entry.payload) for entry in entries]) + len(entries) * ENTRY_OVERHEAD

    def accepted(self, entries: list[Entry]) -> None:
        """Upstream has them."""
        self._counts.delivered += len(entries)
        self._pacing.success()
        for entry in entries:
            if entry.verdict is not None:
                entry.verdict(OK)
        self.over(entries)

    def refused(self, entry: Entry, text: str, *, reply: bytes | None = None) -> bool:
        """Upstream refused this job; True when it is to be sent again, else it is settled.

        Args:
            text: upstream's, without its leading `ERR `.
            reply: upstream's raw reply to a job that travelled by itself.
        """
        kind = meaning(text)
        if kind is Meaning.TIMED_OUT:
            self._counts.in_doubt += 1
            self._pacing.too_slow(trio.current_time())
        elif kind is not Meaning.FINAL:
            self._pacing.transient(trio.current_time())
        if kind is not Meaning.FINAL:
            message = f"Faktory refuses jobs for now: {text}"
            self._floods.warning(trio.current_time(), "jobs_put_off", message=message, key=text)
        if entry.verdict is not None:
            self._counts.reject(entry.jid, entry.payload, text, dead=False)
            entry.verdict(reply if reply is not None else reply_line(text))
            self.over([entry])
            return False
        if kind is Meaning.UNKNOWN:
            entry.tries += 1
            if self._journal is not None and entry.stored:
                self._journal.note_attempts([entry.id], entry.tries)
        if kind is Meaning.FINAL or entry.tries >= UNKNOWN_TRIES:
            self.bury(entry, text)
            return False
        return True

    def over(self, entries: list[Entry]) -> None:
        """They are no longer our business: upstream has them, or their producers know that it hasn't."""
        stored: list[int] = []
        for entry in entries:
            if entry.stored:
                stored.append(entry.id)
            else:
                self.unstored_memory -= len(entry.payload) + ENTRY_OVERHEAD
        if stored and self._journal is not None:
            self._deleting += len(stored)
            self._journal.settle(stored, partial(self._deleted, len(stored)))
        self._end(entries)

    def bury(self, entry: Entry, text: str) -> None:
        """An acknowledged job that upstream refused for good becomes a dead letter."""
        attempts = entry.tries + 1
        self._counts.reject(entry.jid, entry.payload, text, dead=True)
        message = f"Faktory refused an acknowledged job for good: {text}"
        if entry.stored:
            self._floods.error(
                trio.current_time(), "job_dead", message=message, jid=entry.jid, attempts=attempts, kept=True
            )
        else:  # the log is the only place that knows it, so none is summed up
            log.error("job_dead", message=message, jid=entry.jid, attempts=attempts, kept=False)
        if entry.stored and self._journal is not None:
            letter = DeadLetter(entry.id, entry.jid, text, attempts, entry.payload, time.time())
            self._journal.bury([letter])
        else:
            self.unstored_memory -= len(entry.payload) + ENTRY_OVERHEAD
        self._end([entry])

    def missing(self, jobs: int) -> None:
        """So many jobs could not be read back from the journal, which has set them aside."""
        self.unsettled -= jobs
        self._settled()

    def _end(self, entries: list[Entry]) -> None:
        self.unsettled -= len(entries)
        for entry in entries:
            entry.place = Place.OVER
            entry.epoch.settle()
        self._settled()

    def _deleted(self, jobs: int) -> None:
        was_full = self.buffer_full
        self._deleting -= jobs
        if was_full and not self.buffer_full:
            self._room()
