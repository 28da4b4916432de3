"""Sends what the intake offers, and settles it by upstream's replies.

The invariant: a job that was taken is in exactly one place: parked, in the backlog (only in the journal), in a lane of
the batcher, in a batch in flight, or settled. It is settled by upstream's positive reply, or by its refusal: then an
acknowledged job is a dead letter, and a confirmed one's producer is told. A job whose reply is lost is *in doubt* and
goes back to the front; a confirmed one only while its producer waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio

from sidecar.batching import ENTRY_OVERHEAD, Batch, Batcher, Entry, Place
from sidecar.errors import Refusal
from sidecar.forwarder.backlog import Backlog
from sidecar.forwarder.outcome import Unreadable, check_single, refused_as_a_whole, refused_jobs
from sidecar.forwarder.pacing import Pacing
from sidecar.journal import DeadLetter, Journal
from sidecar.logs import TIMEOUT, FlushLog, get_logger
from sidecar.metrics import Counts
from sidecar.origins import Epoch
from sidecar.protocol.replies import OK
from sidecar.upstream.link import Link
from sidecar.upstream.pipe import Pipe
from sidecar.upstream.refusals import Meaning, meaning, reply_line

SETTLE_BUFFER = 1_000
"""Jobs whose deletion from the journal may be under way: while it is full the link sends nothing more. Together with
what is in flight it bounds what a crash can send twice."""
UNKNOWN_TRIES = 5
"""Refusals with a text of unknown meaning after which a job is refused for good."""
SUSPECT_KILLS, POISON_KILLS = 2, 5
"""Links lost with the same batch at the head: from the first number on it travels alone and is split, until the
culprit stands alone; at the second it is a dead letter."""

LOST = Refusal("in doubt: the connection to Faktory was lost before the reply; the job may have been enqueued").line()

log = get_logger()


class Forwarder:
    """Everything between the acknowledgement of a job and its end.

    Args:
        batcher: the lanes.
        link: the connection; it must call `link_changed`.
        journal: the store, or None where nothing is stored.
        depth: batches in flight at most.
        room: bytes of memory for jobs that are in the journal too.
    """

    def __init__(
        self,
        batcher: Batcher,
        link: Link,
        journal: Journal | None,
        *,
        depth: int,
        room: int,
        counts: Counts,
        flush_log: FlushLog,
    ) -> None:
        self._batcher = batcher
        self._link = link
        self._journal = journal
        self._counts = counts
        self._flush_log = flush_log
        self._pacing = Pacing(batcher)
        self._backlog: Backlog | None = None
        if journal is not None:
            self._backlog = Backlog(batcher, journal, room=room, arrived=self.pump, missing=self._forget)
            journal.requeued = self._requeued
        self._depth = depth
        self._window = depth * batcher.limits.jobs
        self._load = 0  # of the window: a single counts as one job, a batch as a full one
        self._in_flight: list[Batch] = []  # only filled while a loss is worked off
        self._alone = False
        self._settling = 0
        self._pushb = True
        self._wake = trio.Event()
        self._parked: list[tuple[Sequence[Entry], bool]] = []
        self._flushes: list[Callable[[], None]] = []
        self.unsettled = journal.waiting if journal is not None else 0
        """Jobs taken and not settled, wherever they are."""
        self.in_flight = 0
        """Jobs sent whose reply is owed."""
        self.unstored_memory = 0
        """Bytes of memory that the unsettled jobs hold which are nowhere else, about."""

    # What the intake and the edges call ----------------------------------------------------------------------------

    def offer(self, entries: Sequence[Entry], *, linger: bool = True) -> None:
        """Take jobs of one epoch, already counted there, acknowledged or to be confirmed. Ids rise call by call."""
        self.unsettled += len(entries)
        if not entries[0].stored:
            self._hold(entries)
        if self._flushes:
            self._parked.append((entries, linger))
        else:
            self._admit(entries, linger)

    def offer_urgent(self, entries: Sequence[Entry]) -> None:
        """Take jobs whose verdict is waited for while others of the intake's are acknowledged: they go ahead."""
        self.unsettled += len(entries)
        self._hold(entries)
        self._batcher.offer_urgent(entries)
        self.pump()

    def promote(self, epoch: Epoch) -> None:
        """Somebody waits for the jobs of this epoch, or of one before it: they go ahead."""
        chain = [epoch]
        while (before := chain[-1].previous) is not None:
            chain.append(before)
        for one in reversed(chain):
            self._batcher.promote(one)
            if self._backlog is not None:
                self._backlog.promote(one)
        self.pump()

    def when_all_settled(self, then: Callable[[], None]) -> None:
        """Call `then` when every job taken so far is settled; jobs taken meanwhile are held back until then."""
        if not self.unsettled:
            then()
            return
        self._flushes.append(then)
        self._batcher.ask()
        self.pump()

    def stop_waiting(self, then: Callable[[], None]) -> None:
        """Take back a `when_all_settled`."""
        if then in self._flushes:
            self._flushes.remove(then)
            self._release_parked()

    def drop(self, entry: Entry) -> bool:
        """Take back a confirmed job whose producer no longer waits; False when it was sent: then it isn't resent."""
        if self._batcher.drop(entry):
            self._settled([entry])
            return True
        entry.place = Place.DROPPED
        return False

    def hurry(self) -> None:
        """No job lingers from now on (the drain at the end)."""
        self._batcher.linger = 0.0
        self._batcher.ask()
        self._wake.set()

    @property
    def backlog(self) -> int:
        """Jobs that wait only in the journal."""
        return self._backlog.jobs if self._backlog is not None else 0

    # Sending -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is due when its time comes, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._backlog is not None:
                nursery.start_soon(self._backlog.run)
            while True:
                self._wake = trio.Event()
                due = self.pump()
                with trio.move_on_at(due if due is not None else trio.current_time() + 3600):
                    await self._wake.wait()
                now = trio.current_time()
                if (summary := self._flush_log.due) is not None and summary <= now:
                    self._flush_log.tick(now)

    def pump(self) -> float | None:
        """Send all that is due and fits; returns when there is more to do (trio's clock), None: when told."""
        now = trio.current_time()
        pipe = self._link.pipe
        due: float | None = None
        if pipe is not None:
            while self._may_send(pipe, now) and (batch := self._batcher.take(now)) is not None:
                self._send(pipe, batch, now)
            if pipe.lost is None and self._load < self._window:
                due = self._batcher.due()
                if due is not None:
                    due = max(due, self._pacing.hold_until, now + 0.0005) if not self._stalled() else None
        if self._backlog is not None:
            self._backlog.check()
        summary = self._flush_log.due
        return due if summary is None else min(summary, due or summary)

    def _admit(self, entries: Sequence[Entry], linger: bool) -> None:
        if self._backlog is not None and entries[0].stored and self._backlog.takes(entries):
            return
        idle = not self._batcher.jobs
        self._batcher.offer(entries, linger=linger)
        if not linger or self._batcher.jobs >= self._batcher.max_jobs:
            self.pump()
        elif idle:
            self._wake.set()

    def _hold(self, entries: Sequence[Entry]) -> None:
        self.unstored_memory += sum([len(entry.payload) for entry in entries]) + len(entries) * ENTRY_OVERHEAD

    def _stalled(self) -> bool:
        """True while only a reply or a commit can let the next batch go."""
        return self._alone or self._settling >= SETTLE_BUFFER or (self._load > 0 and self._batcher.next_is_alone())

    def _may_send(self, pipe: Pipe, now: float) -> bool:
        return (
            self._load < self._window and now >= self._pacing.hold_until and pipe.lost is None and not self._stalled()
        )

    def _send(self, pipe: Pipe, batch: Batch, now: float) -> None:
        batch.sent_at = now
        if batch.single:
            command = b"PUSH " + batch.entries[0].payload + b"\r\n"
        elif self._pushb:
            command = b"PUSHB [" + b",".join([entry.payload for entry in batch.entries]) + b"]\r\n"
        else:
            for entry in batch.entries:
                self._send(pipe, Batch([entry], batch.reason, single=True, alone=batch.alone), now)
            return
        self._alone = batch.alone
        self._load += self._weight(batch)
        self.in_flight += len(batch.entries)
        self._counts.batches += 1
        if not batch.single:
            self._flush_log.flushed(len(batch.entries), _REASONS[batch.reason], now)
        pipe.send(command, partial(self._answered, batch))

    def _weight(self, batch: Batch) -> int:
        return 1 if batch.single and self._depth > 1 else self._batcher.limits.jobs

    # Replies -------------------------------------------------------------------------------------------------------

    def _answered(self, batch: Batch, reply: bytes | None) -> None:
        """The one outcome of a command: its raw reply, or None when the link was lost before it."""
        self._load -= self._weight(batch)
        self.in_flight -= len(batch.entries)
        self._alone = False
        if reply is None:
            self._in_flight.append(batch)
            return
        try:
            whole = refused_as_a_whole(reply)
            if whole is not None:
                self._refused_whole(batch, reply, whole)
            elif batch.single:
                check_single(reply)
                self._accepted(batch.entries)
            else:
                self._sort(batch, refused_jobs(reply))
        except Unreadable as error:
            self._in_flight.append(batch)
            self._link.drop(str(error))
            return
        self.pump()

    def _sort(self, batch: Batch, refused: dict[str, str]) -> None:
        if not refused:
            self._flush_log.enqueued(len(batch.entries), trio.current_time())
            self._accepted(batch.entries)
            return
        accepted = [entry for entry in batch.entries if entry.jid not in refused]
        if accepted:
            self._flush_log.enqueued(len(accepted), trio.current_time())
            self._accepted(accepted)
        again = [e for e in batch.entries if e.jid in refused and self._refused(e, refused[e.jid])]
        self._again(again)

    def _accepted(self, entries: list[Entry]) -> None:
        self._counts.delivered += len(entries)
        self._pacing.success()
        for entry in entries:
            if entry.verdict is not None:
                entry.verdict(OK)
        self._settled(entries)

    def _settled(self, entries: list[Entry]) -> None:
        """Upstream has them, or their producers know that it hasn't: they are no longer our business."""
        stored: list[int] = []
        for entry in entries:
            if entry.stored:
                stored.append(entry.id)
            else:
                self.unstored_memory -= len(entry.payload) + ENTRY_OVERHEAD
        if stored and self._journal is not None:
            self._settling += len(stored)
            self._journal.settle(stored, partial(self._deleted, len(stored)))
        self._forget(len(entries))
        for entry in entries:
            entry.epoch.settle()

    def _deleted(self, jobs: int) -> None:
        full = self._settling >= SETTLE_BUFFER
        self._settling -= jobs
        if full and self._settling < SETTLE_BUFFER:
            self.pump()

    def _forget(self, jobs: int) -> None:
        """So many jobs are unsettled no longer."""
        self.unsettled -= jobs
        if self._flushes and self.unsettled <= sum(len(entries) for entries, _ in self._parked):
            flushes, self._flushes = self._flushes, []
            for then in flushes:
                then()
            self._release_parked()

    def _release_parked(self) -> None:
        if self._flushes:
            return
        parked, self._parked = self._parked, []
        for entries, linger in parked:
            rest = [entry for entry in entries if entry.place != Place.DROPPED]
            if rest:
                self._admit(rest, linger)

    def _refused_whole(self, batch: Batch, reply: bytes, text: str) -> None:
        kind = meaning(text)
        if batch.single:
            self._refused_single(batch.entries[0], reply, text, kind)
        elif kind is Meaning.UNSUPPORTED:
            self._pushb = False
            log.warning("pushb_unsupported", message="Faktory is older than 1.6.0: jobs leave one by one", reply=text)
            self._batcher.give_back(batch.entries)
        elif kind is Meaning.LINK:
            self._batcher.give_back(batch.entries)
            self._link.drop(text)
        elif len(batch.entries) > 1 and kind not in (Meaning.TRANSIENT, Meaning.TIMED_OUT):
            log.warning("batch_split", message=f"Faktory refused a batch of {len(batch.entries)} jobs: {text}")
            self._resent(batch.entries)
            self._batcher.split(batch, alone=False)
        else:
            self._again([entry for entry in batch.entries if self._refused(entry, text)])

    def _refused_single(self, entry: Entry, reply: bytes, text: str, kind: Meaning) -> None:
        if kind is Meaning.LINK and not entry.once:
            self._batcher.give_back([entry])
            self._link.drop(text)
        elif entry.verdict is not None:
            self._counts.rejected += 1
            entry.verdict(reply)
            self._settled([entry])
        elif self._refused(entry, text):
            self._again([entry])

    def _refused(self, entry: Entry, text: str) -> bool:
        """Settle a refused job where the refusal is its end; True when it is to be sent again."""
        kind = meaning(text)
        now = trio.current_time()
        if kind is Meaning.TIMED_OUT:
            self._counts.in_doubt += 1
            self._pacing.too_slow(now)
        elif kind is not Meaning.FINAL:
            self._pacing.transient(now)
        if entry.verdict is not None:
            self._counts.rejected += 1
            entry.verdict(reply_line(text))
            self._settled([entry])
            return False
        if kind is Meaning.UNKNOWN:
            entry.tries += 1
            if self._journal is not None and entry.stored:
                self._journal.note_attempts([entry.id], entry.tries)
        if kind is Meaning.FINAL or entry.tries >= UNKNOWN_TRIES:
            self._bury(entry, text)
            return False
        return True

    def _bury(self, entry: Entry, text: str) -> None:
        """An acknowledged job that upstream refused for good becomes a dead letter."""
        self._counts.rejected += 1
        self._counts.dead += 1
        log.error(
            "job_dead",
            message=f"Faktory refused an acknowledged job for good: {text}",
            jid=entry.jid,
            attempts=entry.tries + 1,
            kept=entry.stored,
        )
        if entry.stored and self._journal is not None:
            letter = DeadLetter(
                id=entry.id, jid=entry.jid, reason=text, attempts=entry.tries + 1, payload=entry.payload, at=0.0
            )
            self._journal.bury([letter])
        else:
            self.unstored_memory -= len(entry.payload) + ENTRY_OVERHEAD
        self._forget(1)
        entry.epoch.settle()

    def _again(self, entries: list[Entry]) -> None:
        if entries:
            self._resent(entries)
            self._batcher.give_back(entries)

    def _resent(self, entries: list[Entry]) -> None:
        self._counts.resent += len(entries)

    # The link ------------------------------------------------------------------------------------------------------

    def link_changed(self) -> None:
        """The link came up or went down."""
        if self._link.pipe is not None:
            self._pushb = True
            self.pump()
            self._wake.set()
            return
        lost, self._in_flight = self._in_flight, []
        by_silence = (self._link.down_reason or "").startswith("no reply")
        for place, batch in enumerate(reversed(lost)):
            head = place == len(lost) - 1
            entries = self._after_loss(batch.entries)
            if head and not by_silence:
                self._suspect(batch, entries)
            else:
                self._batcher.give_back(entries)

    def _after_loss(self, entries: list[Entry]) -> list[Entry]:
        """Those of a lost batch that are to be sent again; the others' producers are told that they are in doubt."""
        self._counts.in_doubt += len(entries)
        again: list[Entry] = []
        over: list[Entry] = []
        for entry in entries:
            (over if entry.once or entry.place == Place.DROPPED else again).append(entry)
        for entry in over:
            if entry.verdict is not None:
                entry.verdict(LOST)
        if over:
            self._settled(over)
        self._resent(again)
        return again

    def _suspect(self, batch: Batch, entries: list[Entry]) -> None:
        """The link was lost with this batch at the head: once is chance, twice is a suspicion."""
        for entry in entries:
            entry.kills += 1
        if not entries:
            return
        kills = max(entry.kills for entry in entries)
        if len(entries) == 1 and batch.alone and kills >= POISON_KILLS and entries[0].verdict is None:
            self._bury(entries[0], f"the link was lost {kills} times with this job alone on it")
        elif kills >= SUSPECT_KILLS:
            batch.entries = entries
            self._batcher.split(batch, alone=True)
        else:
            self._batcher.give_back(entries)

    def _requeued(self, ids: Sequence[int]) -> None:
        if self._backlog is not None:
            self.unsettled += len(ids)
            self._backlog.requeued(ids)


_REASONS = {"full": "batch full", "timeout": TIMEOUT, "asked": "not to wait"}
