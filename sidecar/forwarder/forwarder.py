"""Sends what the intake offers, and settles it by upstream's replies.

The invariant: a job that was taken is in exactly one place: parked, in the backlog (only in the journal), in a lane of
the batcher, in a batch in flight, or settled. A job whose reply is lost is *in doubt* and goes back to the front; a
confirmed one only while its producer waits, and one that must not be sent twice never.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import trio

from sidecar.forwarder.apart import Apart
from sidecar.forwarder.audit import Audit, Known
from sidecar.forwarder.backlog import Backlog
from sidecar.forwarder.batching import Batch, Batcher
from sidecar.forwarder.flushgate import FlushGate
from sidecar.forwarder.judge import Fates, Unreadable, after_loss, judge
from sidecar.forwarder.left import Left, left
from sidecar.forwarder.pacing import Pacing
from sidecar.forwarder.settlement import Settlement
from sidecar.jobs import Entry, Epoch, Place
from sidecar.journal import Journal, Row
from sidecar.logs import TIMEOUT, FloodLog, FlushLog, defect, get_logger
from sidecar.metrics import Counts
from sidecar.protocol.commands import push, pushb
from sidecar.supervision import supervised
from sidecar.upstream.link import Link
from sidecar.upstream.pipe import Command, Pipe
from sidecar.upstream.refusals import knows_pushb

log = get_logger()


class Forwarder:
    """Everything between the acknowledgement of a job and its end.

    Args:
        batcher: the lanes.
        link: the connection; it must call `link_changed`.
        journal: the store, or None where nothing is stored.
        depth: batches in flight at most.
        floods: for records that many jobs can cause.
        room: bytes of memory for jobs that are in the journal too, and for jobs in flight.
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
        floods: FloodLog | None = None,
    ) -> None:
        self._batcher = batcher
        self._link = link
        self._counts = counts
        self._flush_log = flush_log
        self._floods = floods if floods is not None else FloodLog(log)
        self._pacing = Pacing(batcher)
        self._gate = FlushGate(self._admit)
        self.apart = Apart(batcher, journal, may_try=self._may_try, arrived=self.pump, missing=self._missing_apart)
        """Jobs that upstream refuses while it accepts others."""
        self._settlement = Settlement(
            journal,
            batcher,
            self._pacing,
            self.apart,
            counts,
            self._floods,
            settled=self._after_settling,
            room=self.pump,
        )
        self._backlog: Backlog | None = None
        if journal is not None:
            self._backlog = Backlog(
                batcher,
                journal,
                room=room,
                in_flight=lambda: self._bytes,
                arrived=self.pump,
                missing=self._settlement.missing,
                apart=self._adopt_apart,
            )
            journal.requeued = self._requeued
            journal.recovered = self._recovered
        self._journal = journal
        self._depth = depth
        self._window = (depth - 1) * batcher.limits.jobs  # the load beside which a full batch fits
        self._load = 0  # of the window: a single counts as one job, a batch as a full one
        self._room = room
        self._bytes = 0  # in flight
        self._flying: set[Batch] = set()
        self._lost: list[Batch] = []  # batches of a link that ended, until that is worked off
        self._alone = False  # what is in flight must stay by itself
        self._pushb = True
        self._wake = trio.Event()
        self._asleep_until = -math.inf
        self.in_flight = 0
        """Jobs sent whose reply is owed."""
        self.reply_time = 0.0
        """Seconds that the last reply took."""

    # What the intake and the edges call ----------------------------------------------------------------------------

    @property
    def unsettled(self) -> int:
        """Jobs taken and not settled, wherever they are."""
        return self._settlement.unsettled

    @property
    def owed(self) -> int:
        """Of these, the jobs that can be expected to be settled soon: what waits apart isn't."""
        return self.unsettled - self.resting

    @property
    def resting(self) -> int:
        """Jobs that wait apart for a later try."""
        return self.apart.jobs - self.apart.owed

    @property
    def unstored_memory(self) -> int:
        """Bytes of memory of those that are nowhere else, about."""
        return self._settlement.unstored_memory

    @property
    def backlog(self) -> int:
        """Jobs that wait only in the journal."""
        return self._backlog.jobs if self._backlog is not None else 0

    def offer(self, entries: Sequence[Entry], *, linger: bool = True) -> None:
        """Take jobs, all stored or none, already counted in their epochs. Ids rise within a call and call by call."""
        self._settlement.take(entries)
        if self._gate.closed:
            self._gate.park(entries, linger=linger)
        else:
            self._admit(entries, linger)

    def offer_urgent(self, entries: Sequence[Entry]) -> None:
        """Take jobs whose verdict is waited for while others of the intake's are acknowledged: they go ahead."""
        self._settlement.take(entries)
        self._batcher.offer_urgent(entries)
        self.pump()

    def promote(self, epoch: Epoch) -> None:
        """Somebody waits for the jobs of this epoch, or of one before it: they go ahead."""
        chain = [epoch]
        while (before := chain[-1].previous) is not None:
            chain.append(before)
        for one in reversed(chain):
            one.hurried = True
            self._batcher.promote(one)
            if self._backlog is not None:
                self._backlog.promote(one)
        self.pump()

    def when_all_settled(self, then: Callable[[], None]) -> None:
        """Call `then` when every job taken so far is settled; jobs taken meanwhile are held back until then."""
        if self._settlement.awaited <= 0:
            then()
            return
        self._gate.wait(then)
        self._batcher.ask()
        self.pump()

    def stop_waiting(self, then: Callable[[], None]) -> None:
        """Take back a `when_all_settled`."""
        self._gate.stop_waiting(then)
        self._after_settling()

    def drop(self, entry: Entry) -> bool:
        """Take back a confirmed job whose producer no longer waits; False when it was sent: then it isn't resent."""
        if entry.place == Place.PARKED:
            self._gate.dropped()
        if self._batcher.drop(entry):
            self._settlement.over(entry)
            return True
        entry.place = Place.DROPPED
        return False

    def hurry(self) -> None:
        """No job lingers from now on (the drain at the end)."""
        self._batcher.linger = 0.0
        self._batcher.ask()
        self.apart.hurry()
        self._wake.set()

    def stop_sending(self) -> None:
        """Nothing is sent any more: no batch fits."""
        self._window = -1

    def left(self) -> Left:
        """What became of the acknowledged jobs that are not settled, once nothing is in flight any more."""
        return left([*self._batcher.left(), *self._gate.left(), *self.apart.left()])

    # Sending -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is due when its time comes, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._backlog is not None:
                nursery.start_soon(supervised, "backlog", self._backlog.run)
            nursery.start_soon(supervised, "apart", self.apart.run)
            while True:
                self._wake = trio.Event()
                self._asleep_until = -math.inf
                self.pump()
                self._asleep_until = self._next_due()
                with trio.move_on_at(self._asleep_until):
                    await self._wake.wait()
                self._flush_log.tick(trio.current_time())

    def pump(self) -> None:
        """Send all that is due and fits."""
        now = trio.current_time()
        pipe = self._link.pipe
        if pipe is not None:
            while self._may_send(pipe, now) and (batch := self._batcher.take(now)) is not None:
                self._try_to_send(pipe, batch, now)
        if self._backlog is not None:
            self._backlog.check()
        if self._next_due() < self._asleep_until:
            self._wake.set()

    def _next_due(self) -> float:
        """When something is to be done that no event tells of (trio's clock)."""
        due = self._batcher.due()
        if due is None or self._link.pipe is None or self._load > self._window or self._stalled():
            due = math.inf
        summary = self._flush_log.due
        return min(max(due, self._pacing.hold_until), math.inf if summary is None else summary)

    def _admit(self, entries: Sequence[Entry], linger: bool) -> None:
        if self._backlog is not None and entries[0].stored and self._backlog.takes(entries):
            return
        idle = not self._batcher.jobs
        self._batcher.offer(entries, linger=linger)
        hurried = [entry.epoch for entry in entries if entry.epoch.hurried]
        for epoch in hurried:
            self._batcher.promote(epoch)
        if not linger or hurried or self._batcher.full:
            self.pump()
        elif idle and self._next_due() < self._asleep_until:
            self._wake.set()

    def _stalled(self) -> bool:
        """True while only a reply or a commit can let the next batch go."""
        return (
            self._alone
            or self._bytes >= self._room
            or self._settlement.buffer_full
            or (self._load > 0 and (self._pacing.cautious or self._batcher.next_is_alone()))
        )

    def _may_try(self) -> bool:
        pausing = trio.current_time() < self._pacing.hold_until
        return self._link.pipe is not None and not pausing and not self._settlement.buffer_full

    def _may_send(self, pipe: Pipe, now: float) -> bool:
        return (
            self._load <= self._window
            and now >= self._pacing.hold_until
            and pipe.lost is None
            and pipe is self._link.pipe
            and not self._stalled()
        )

    def _send(self, pipe: Pipe, batch: Batch, now: float) -> None:
        batch.sent_at = now
        if batch.single:
            command: Command = push(batch.entries[0].payload)
        elif self._pushb:
            command = pushb([entry.payload for entry in batch.entries])
        else:
            fit = len(batch.entries) if self._depth > 1 else 1
            self._batcher.give_back(batch.entries[fit:])
            for entry in batch.entries[:fit]:
                self._send(pipe, Batch([entry], batch.reason, single=True, alone=batch.alone), now)
            return
        self._alone = batch.alone
        self._load += self._weight(batch)
        batch.size = sum(map(len, command)) if isinstance(command, list) else len(command)
        batch.delivered = self._counts.delivered
        self._bytes += batch.size
        self.in_flight += len(batch.entries)
        first = batch.entries[0]
        reason = "single" if batch.single else batch.reason
        self._counts.sent(len(batch.entries), reason, now - first.at if first.at else None)
        if not batch.single:
            self._flush_log.flushed(len(batch.entries), _REASONS[batch.reason], now)
        self._flying.add(batch)
        pipe.send(command, partial(self._outcome, batch))

    def _weight(self, batch: Batch) -> int:
        return 1 if batch.single and self._depth > 1 else self._batcher.limits.jobs

    # Replies -------------------------------------------------------------------------------------------------------

    def _answered(self, batch: Batch, reply: bytes | None) -> None:
        """The one outcome of a command: its raw reply, or None when the link was lost before it."""
        self._load -= self._weight(batch)
        self._bytes -= batch.size
        self._flying.discard(batch)
        self.in_flight -= len(batch.entries)
        self._alone = False
        if reply is None:
            self._lost.append(batch)
            return
        now = trio.current_time()
        self.reply_time = now - batch.sent_at
        self._counts.reply.record(self.reply_time)
        try:
            fates = judge(batch, reply, delivered=self._counts.delivered, now=now)
        except Unreadable as error:
            self._lost.append(batch)
            self._link.drop(str(error))
            return
        if fates.accepted and not batch.single:
            self._flush_log.enqueued(len(fates.accepted), now)
        if fates.split:
            message = f"Faktory refused a batch of {len(batch.entries)} jobs: {fates.text}"
            self._floods.warning(now, "batch_split", message=message)
        if fates.no_pushb:
            self._without_pushb(fates)
        if fates.drop is not None:
            self._link.drop(fates.drop)
        self._settlement.apply(fates, batch)
        self.pump()

    def _without_pushb(self, fates: Fates) -> None:
        """It turned out that this server has no `PUSHB`."""
        if self._pushb and not knows_pushb(self._link.version):
            self._pushb = False
            self._say_without_pushb(fates.text)

    def _say_without_pushb(self, reply: str = "") -> None:
        message = (
            f"Faktory {self._link.version or 'of unknown version'} has no PUSHB (1.6.0 has): jobs leave one by one"
        )
        log.warning("pushb_unsupported", message=message, reply=reply)

    def _after_settling(self) -> None:
        if self._gate.closed:
            self._gate.settled(self._settlement.awaited)
            if self._gate.closed:
                self._batcher.ask()  # somebody may wait for jobs that were parked until now

    # The link ------------------------------------------------------------------------------------------------------

    def link_changed(self) -> None:
        """The link came up or went down."""
        if self._link.pipe is not None:
            self._pushb = knows_pushb(self._link.version) is not False
            if not self._pushb:
                self._say_without_pushb()
            self.pump()
            self._wake.set()
            return
        lost, self._lost = self._lost, []
        by_silence = (self._link.down_reason or "").startswith("no reply")
        while lost:  # the last one first
            batch = lost.pop()
            try:
                fates = after_loss(batch, head=not lost, by_silence=by_silence, delivered=self._counts.delivered)
                self._settlement.apply(fates, batch)
            except Exception as error:
                defect("forwarder", error, "the batch is sent again as it was")
                self._send_again(batch)

    def _send_again(self, batch: Batch) -> None:
        """What a defect has left of a lost batch: all others don't wait for it, and it isn't forgotten."""
        left = [entry for entry in batch.entries if entry.place == Place.SENT]
        again = [entry for entry in left if not entry.once]
        self._counts.in_doubt += len(again)
        self._batcher.give_back(again)
        for entry in left:
            if entry.once:  # who waits for its verdict is told that it is in doubt when the time is over
                self._settlement.over(entry)

    def _adopt_apart(self, rows: Sequence[Row]) -> None:
        self.apart.adopt(rows, trio.current_time())
        self._after_settling()

    def _missing_apart(self, jobs: int) -> None:
        self._settlement.missing(jobs)

    # Defects -------------------------------------------------------------------------------------------------------

    def _try_to_send(self, pipe: Pipe, batch: Batch, now: float) -> None:
        try:
            self._send(pipe, batch, now)
        except Exception as error:
            self._fell(batch, error)

    def _outcome(self, batch: Batch, reply: bytes | None) -> None:
        try:
            self._answered(batch, reply)
        except Exception as error:
            self._fell(batch, error)

    def _fell(self, batch: Batch, error: Exception) -> None:
        """A defect in the middle of a batch's work: what is not settled and not back in a lane is in doubt."""
        defect("forwarder", error, "the link is given up, what is in flight is in doubt and sent again")
        batch.entries = [entry for entry in batch.entries if entry.place in (Place.SENT, Place.DROPPED)]
        if batch not in self._lost:
            self._lost.append(batch)
        self._link.drop("a defect in the forwarder")

    def _requeued(self, ids: Sequence[int]) -> None:
        if self._backlog is not None:
            self._settlement.unsettled += len(ids)
            self._backlog.requeued(ids)

    def _recovered(self, ids: Sequence[int]) -> None:
        """Stored jobs turned up that nobody knew of: they may have been sent before."""
        self._counts.recovered += len(ids)
        self._counts.in_doubt += len(ids)
        self._requeued(ids)

    def audit(self, journal: Journal) -> Audit:
        """The self-audit of the journal, to be run."""
        return Audit(journal, known=self._known, delivered=lambda: self._counts.delivered, recover=self._recovered)

    def _known(self) -> Known:
        """Every stored job that is somewhere here, or whose deletion isn't confirmed: the places of the invariant."""
        assert self._journal is not None
        assert self._backlog is not None
        known = self._backlog.known()
        known.ids.update(self._journal.leaving(), self.apart.ids())
        flying = [batch.entries for batch in (*self._flying, *self._lost)]
        for entries in (self._batcher.left(), self._gate.left(), *flying):
            known.ids.update([entry.id for entry in entries if entry.stored])
        return known


_REASONS = {"full": "batch full", "timeout": TIMEOUT, "asked": "not to wait"}
