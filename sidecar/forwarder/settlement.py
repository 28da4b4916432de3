"""The end of each job: accepted, refused, or to be sent again; and what is counted until then.

A job is settled once. An acknowledged one leaves the journal by upstream's positive reply, or becomes a dead letter; a
confirmed one's producer is told upstream's words. Those who wait for jobs are called when all else is done: what they
do then finds everything in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import trio

from sidecar.forwarder.apart import Apart
from sidecar.forwarder.batching import Batch, Batcher
from sidecar.forwarder.judge import Fates, Pace
from sidecar.forwarder.pacing import Pacing
from sidecar.jobs import ENTRY_OVERHEAD, Entry, Place
from sidecar.journal import DeadLetter, Journal
from sidecar.logs import FloodLog, get_logger
from sidecar.metrics import Counts
from sidecar.protocol.replies import OK, error_text

SETTLE_BUFFER = 1_000
"""Jobs whose deletion from the journal may be under way: while it is full the link sends nothing more. Together with
what is in flight it bounds what a crash can send twice."""
_OVER: Final = int(Place.OVER)

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
        batcher: Batcher,
        pacing: Pacing,
        apart: Apart,
        counts: Counts,
        floods: FloodLog,
        *,
        settled: Callable[[], object],
        room: Callable[[], object],
    ) -> None:
        self._journal = journal
        self._batcher = batcher
        self._pacing = pacing
        self._apart = apart
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

    @property
    def awaited(self) -> int:
        """Jobs that a barrier for all must wait for: none waits for those that are apart."""
        return self.unsettled - self._apart.jobs

    def take(self, entries: Sequence[Entry]) -> None:
        """These jobs are ours from now on."""
        self.unsettled += len(entries)
        if not entries[0].stored:
            self.unstored_memory += sum([len(entry.payload) for entry in entries]) + len(entries) * ENTRY_OVERHEAD

    def apply(self, fates: Fates, batch: Batch) -> None:
        """Carry out what was decided about a command's jobs."""
        accepted = fates.accepted
        if accepted:
            self._counts.delivered += len(accepted)
            self._pacing.success()
        if len(accepted) == len(batch.entries):
            self._end(accepted, [(entry, OK) for entry in accepted if entry.verdict is not None])
            return
        if len(fates.apart) > self._apart.room:
            self._keep_together(fates)
        for entry, trouble in fates.troubles:
            entry.trouble = trouble
        for entry in fates.as_push:
            entry.single = True
        self._set_pace(fates)
        self._counts.in_doubt += fates.in_doubt
        told = [(entry, OK) for entry in accepted if entry.verdict is not None]
        if not fates.lost:
            for entry, reply in fates.told:
                self._counts.reject(entry.jid, entry.payload, _words(reply), dead=False)
        told += fates.told
        released = self._set_apart(fates)
        self._send_again(fates, batch)
        self._bury(fates.dead)
        ended = [*accepted, *fates.over, *(entry for entry, _ in fates.told)]
        self._end(ended, told, dead=[entry for entry, _ in fates.dead], released=released)

    def over(self, entry: Entry) -> None:
        """It is no longer our business: its producer was told that it was not sent."""
        self._end([entry], ())

    def missing(self, jobs: int) -> None:
        """So many jobs could not be read back from the journal, which has set them aside."""
        self.unsettled -= jobs
        self._settled()

    def _keep_together(self, fates: Fates) -> None:
        """So many jobs are apart that it is no matter of single ones any more: the link waits for these."""
        new = [entry for entry, _ in fates.apart if entry.epoch is not self._apart.nobody]
        fates.text, fates.pace = fates.apart[0][1], max(fates.pace, Pace.PAUSE)
        fates.again = [*fates.again, *new]
        fates.apart = [(entry, text) for entry, text in fates.apart if entry.epoch is self._apart.nobody]
        fates.troubles = [(entry, trouble) for entry, trouble in fates.troubles if entry.epoch is self._apart.nobody]

    def _set_pace(self, fates: Fates) -> None:
        now = trio.current_time()
        match fates.pace:
            case Pace.LESS:
                self._pacing.too_slow(now)
            case Pace.PAUSE:
                self._pacing.transient(now)
        if fates.pace is not Pace.ON:
            message = f"Faktory refuses jobs for now: {fates.text}"
            self._floods.warning(now, "jobs_put_off", message=message, key=fates.text)

    def _set_apart(self, fates: Fates) -> list[Entry]:
        """Put jobs where nobody waits for them; returns those that somebody may have waited for."""
        if not fates.apart:
            return []
        now = trio.current_time()
        entries = [entry for entry, _ in fates.apart]
        before = self._apart.jobs
        released = self._apart.put(entries, now)
        for entry in entries:
            entry.place = Place.PARKED
        self._note_tries(entries)
        if self._apart.jobs > before:
            self._apart.text = fates.apart[0][1]
            self._floods.warning(
                now,
                "jobs_apart",
                message="Faktory refuses some jobs while it takes others; they wait apart for another try: "
                + self._apart.text,
                key=self._apart.text,
                jid=entries[0].jid,
                jobs=self._apart.jobs,
            )
        return released

    def _note_tries(self, entries: Sequence[Entry]) -> None:
        """Remember over a restart what has counted against these jobs."""
        noted: dict[int, list[int]] = {}
        for entry in entries:
            if entry.stored and entry.trouble is not None and entry.trouble.tries:
                noted.setdefault(entry.trouble.tries, []).append(entry.id)
        if self._journal is not None:
            for tries, ids in noted.items():
                self._journal.note_attempts(ids, tries)

    def _send_again(self, fates: Fates, batch: Batch) -> None:
        self._counts.resent += len(fates.again) + len(fates.split) + len(fates.behind)
        if fates.lost:
            for lane in (fates.again, fates.split, fates.behind):
                for entry in lane:
                    entry.doubtful = True
        self._batcher.give_back(fates.again)
        if fates.split:
            batch.entries = list(fates.split)
            self._batcher.split(batch, alone=fates.alone)
        if fates.behind:
            self._batcher.offer(fates.behind, linger=False)

    def _bury(self, dead: Sequence[tuple[Entry, str]]) -> None:
        """Acknowledged jobs that upstream refused for good become dead letters."""
        letters: list[DeadLetter] = []
        for entry, text in dead:
            attempts = max(1, entry.trouble.tries) if entry.trouble is not None else 1
            self._counts.reject(entry.jid, entry.payload, text, dead=True)
            message = f"Faktory refused an acknowledged job for good: {text}"
            if entry.stored:
                self._floods.error(
                    trio.current_time(), "job_dead", message=message, jid=entry.jid, attempts=attempts, kept=True
                )
                letters.append(DeadLetter(entry.id, entry.jid, text, attempts, entry.payload, time.time()))
            else:  # the log is the only place that knows it, so none is summed up
                log.error("job_dead", message=message, jid=entry.jid, attempts=attempts, kept=False)
        if letters and self._journal is not None:
            self._journal.bury(letters)

    def _end(
        self,
        ended: Sequence[Entry],
        told: Sequence[tuple[Entry, bytes]],
        *,
        dead: Sequence[Entry] = (),
        released: Sequence[Entry] = (),
    ) -> None:
        """Let go of jobs, and then call those who wait: with a reply, or for their epochs."""
        stored = [entry.id for entry in ended if entry.stored]
        if stored and self._journal is not None:
            self._deleting += len(stored)
            self._journal.settle(stored, partial(self._deleted, len(stored)))
        if dead or len(stored) < len(ended):
            unstored = [len(entry.payload) for entry in (*ended, *dead) if not entry.stored]
            self.unstored_memory -= sum(unstored) + len(unstored) * ENTRY_OVERHEAD
        over = _OVER
        for entry in ended:
            entry.place = over
        for entry in dead:
            entry.place = over
        self.unsettled -= len(ended) + len(dead)
        if self._apart.jobs:
            self._apart.gone(ended)
            self._apart.gone(dead)
        for entry, reply in told:
            assert entry.verdict is not None
            entry.verdict(reply)
        _settle_epochs(ended)
        for entry in (*dead, *released):
            entry.epoch.settle()
        for entry in released:
            entry.epoch = self._apart.nobody
        self._settled()

    def _deleted(self, jobs: int) -> None:
        was_full = self.buffer_full
        self._deleting -= jobs
        if was_full and not self.buffer_full:
            self._room()


def _settle_epochs(entries: Sequence[Entry]) -> None:
    """Settle jobs of their epochs; a call for each stretch of one epoch."""
    if not entries:
        return
    epoch, jobs = entries[0].epoch, 0
    for entry in entries:
        if entry.epoch is not epoch:
            epoch.settle(jobs)
            epoch, jobs = entry.epoch, 0
        jobs += 1
    epoch.settle(jobs)


def _words(reply: bytes) -> str:
    return (error_text(reply) or repr(reply[:200])).removeprefix("ERR ")
