"""The door: whether a job may be taken, in which lane, and what its producer is told. The edges know nothing behind it.

Lanes: an acknowledged job is *coalesced* (in `disk` mode when its commit is on disk, in `memory` mode at once); a
*confirmed* one is acknowledged by upstream's verdict: every job in `upstream` and legacy mode, and in any mode the jobs
that only upstream can judge. Whether a job belongs here at all is decided before, by `protocol.jobs.examine`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import trio

from sidecar.config import Ack
from sidecar.errors import Refusal
from sidecar.forwarder import Forwarder
from sidecar.intake.answers import Done, Verdicts
from sidecar.intake.barriers import Barriers
from sidecar.intake.deadlines import Deadlines
from sidecar.intake.ticket import Ticket
from sidecar.intake.turn import Turn
from sidecar.jobs import ENTRY_OVERHEAD, Entry, Epoch, Origin
from sidecar.journal import Journal
from sidecar.metrics import Counts
from sidecar.protocol.jobs import Job
from sidecar.protocol.lines import MAX_LINE
from sidecar.protocol.replies import OK, error_text
from sidecar.upstream.link import Link

FULL_WAIT = 1.0
"""Seconds that a job waits for room before it is refused: enough for a burst, well within every client's patience."""

STOPPING = "the sidecar is stopping; push again when it is back"


class Intake:
    """Takes jobs.

    Args:
        mode: what `+OK` means.
        legacy: each job travels as its own `PUSH` at once, and its reply is upstream's.
        memory_max: bytes of memory for jobs that are nowhere else.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        link: Link,
        journal: Journal | None,
        deadlines: Deadlines,
        *,
        mode: Ack,
        legacy: bool,
        memory_max: int,
        counts: Counts,
    ) -> None:
        self._forwarder = forwarder
        self._barriers = Barriers(forwarder)
        self._link = link
        self._journal = journal
        self._deadlines = deadlines
        self.mode = mode
        self.legacy = legacy
        self._memory_max = memory_max
        self._counts = counts
        self._storing = journal if mode is Ack.DISK else None
        self._confirming = mode is Ack.UPSTREAM
        self._last_id = journal.last_id if journal is not None else 0
        self.uncommitted = 0
        """Jobs under way to the disk."""
        self._stopping = False
        self._turn: Turn | None = None  # being collected
        self._turn_over = trio.Event()
        self._lone = True  # the last turn had one producer
        self._numbers = itertools.count(time.time_ns() // 1000)
        self._workers: WeakValueDictionary[str, Origin] = WeakValueDictionary()

    def origin(self, wid: str = "") -> Origin:
        """An order domain of its own, or the one that all connections of a worker share."""
        if not wid:
            return Origin(self._numbers)
        origin = self._workers.get(wid)
        if origin is None:
            origin = self._workers[wid] = Origin(self._numbers)
        return origin

    @property
    def owed(self) -> int:
        """Jobs that were taken and are not settled, those under way to the disk included.

        Of a journal that has failed nothing is read any more: then those that are only there don't count.
        """
        self.hear()
        if self._journal is not None and self._journal.failed.is_set():
            return self._forwarder.unsettled - self._forwarder.backlog
        return self._forwarder.unsettled + self.uncommitted

    @property
    def waiting(self) -> int:
        """Of these, the jobs that can be expected to be settled soon: what waits apart isn't."""
        return self.owed - self._forwarder.resting

    def refusal_reason(self, jobs: Sequence[Job] = ()) -> str | None:
        """Why jobs are not accepted right now; None: they are.

        Args:
            jobs: which ones; a few that have not come yet, by default.
        """
        if self._stopping:
            return STOPPING
        if self._storing is not None and (fault := self._storing.fault) is not None:
            return fault
        held = self._forwarder.unstored_memory
        if not held:
            return None  # what is larger than the bound is taken when it has all of it
        if jobs:
            held += sum([len(job.payload) for job in jobs]) + len(jobs) * ENTRY_OVERHEAD
        if held < self._memory_max:
            return None
        return f"memory full: {held >> 20:,} MiB of jobs wait for Faktory; the bound is SIDECAR_MEMORY_MAX_BYTES"

    def has_room_for_large(self) -> bool:
        """Whether memory takes one of the largest commands: where that is larger than its bound, alone."""
        held = self._forwarder.unstored_memory
        return not held or held + MAX_LINE <= self._memory_max

    def stop_taking(self) -> None:
        """The end is near: refuse all jobs from now on, for what comes now could not be finished."""
        self._stopping = True
        if self._storing is not None:
            self._storing.stop_taking()

    @property
    def _may_have_room_again(self) -> bool:
        return not self._stopping and (self._storing is None or not self._storing.failed.is_set())

    async def admit(self, jobs: Sequence[Job], *, since: float | None = None) -> Refusal | None:
        """Why these jobs are not taken, counted, once they had the time of `room`; None: they may be submitted."""
        if self.refusal_reason(jobs) is None:
            return None
        refusal = await self.room(jobs, since=since)
        if refusal is not None:
            self.refuse("full", len(jobs))
        return refusal

    async def room(self, jobs: Sequence[Job] = (), *, since: float | None = None) -> Refusal | None:
        """Backpressure before refusal: give a full store up to a second to have room again; why not, if it hasn't.

        Args:
            since: when the command arrived (trio's clock), now by default: commands that came together wait together.
        """
        with trio.move_on_at((trio.current_time() if since is None else since) + FULL_WAIT):
            while self._may_have_room_again and self.refusal_reason(jobs) is not None:  # noqa: ASYNC110 - a disk tells nobody
                await trio.sleep(0.05)
        reason = self.refusal_reason(jobs)
        return Refusal(f"not sent: {reason}", retry=True) if reason is not None else None

    def submit(
        self,
        jobs: Sequence[Job],
        origin: Origin,
        done: Done,
        *,
        linger: bool = True,
        edge: str = "fwp",
        since: float | None = None,
    ) -> None:
        """Take jobs of one origin, all of one kind (`confirmed` or not); `done` is called once with their verdicts.

        The caller has made sure that they are admitted (`admit`, `refusal_reason`).

        Args:
            since: when the command arrived (trio's clock), from which on the time for a verdict runs; now, by default.
        """
        if self._confirming or jobs[0].confirmed:
            self._counts.take(edge, "confirmed", len(jobs))
            self._confirm(jobs, origin, done, linger=linger, since=since)
        elif self._storing is not None:
            self._store(jobs, origin.epoch, done, linger, edge, since)
        else:
            self._counts.take(edge, "coalesced", len(jobs))
            epoch = origin.epoch
            epoch.unsettled += len(jobs)
            self._forwarder.offer(self._entries(jobs, epoch), linger=linger)
            done(None)

    async def run(self) -> None:
        """Hand the jobs of each turn of the event loop to the journal together, until cancelled.

        Handed over one by one, each would wake the writer's thread while this one still works: with 16 producers that
        meant commits of 7 jobs in place of 10, and 30 % fewer jobs a second. A producer that is alone has nobody to
        wait for: as long as a turn brings one command and none is under way, it is handed over at once.
        """
        while True:
            self._turn_over = trio.Event()
            if self._turn is None:
                await self._turn_over.wait()
            if (turn := self._turn) is not None:
                self._turn = None
                self._lone = len(turn.parts) == 1
                turn.hand_over()

    def _store(
        self, jobs: Sequence[Job], epoch: Epoch, done: Done, linger: bool, edge: str, since: float | None
    ) -> None:
        idle = not self.uncommitted
        self.uncommitted += len(jobs)
        epoch.unsettled += len(jobs)
        turn = self._turn
        if turn is None:
            assert self._storing is not None
            turn = Turn(self, self._storing)
            if not (idle and self._lone):
                self._turn = turn
                self._turn_over.set()
        turn.parts.append((jobs, epoch, done, edge))
        turn.linger &= linger
        if since is not None and (turn.since is None or since < turn.since):
            turn.since = since
        if turn is not self._turn:
            turn.hand_over()

    def stored(self, turn: Turn, refusal: Refusal | None) -> None:
        """The journal has a turn's jobs on disk, or hasn't."""
        entries: list[Entry] = []
        at, job_id, jobs_in_all = trio.current_time() - turn.age, turn.first, 0
        for jobs, epoch, _, edge in turn.parts:
            jobs_in_all += len(jobs)
            if refusal is not None:
                epoch.settle(len(jobs))
                continue
            self._counts.take(edge, "coalesced", len(jobs))
            for job in jobs:
                entries.append(Entry(job_id, job.payload, job.jid, epoch, at, None, True))
                job_id += 1
        self.uncommitted -= jobs_in_all
        if refusal is None:
            self._forwarder.offer(entries, linger=turn.linger)
        else:
            self._counts.refuse("journal", jobs_in_all)

    async def take(self, jobs: Sequence[Job], origin: Origin, *, linger: bool = True) -> list[Refusal | None]:
        """As `submit`, for one who waits; jobs of both kinds may be mixed.

        Returns:
            one entry a job: None where it was accepted, else why not.

        Raises:
            Refusal: none was taken.
        """
        if (refusal := await self.admit(jobs)) is not None:
            raise refusal
        outcome: list[Refusal | None] = [None] * len(jobs)
        groups = [[i for i, job in enumerate(jobs) if job.confirmed is kind] for kind in (False, True)]
        waits = [self._taking([jobs[i] for i in group], origin, linger) for group in groups if group]
        refused: list[Refusal] = []
        for group, (finished, verdicts) in zip([group for group in groups if group], waits, strict=True):
            await finished.wait()
            verdict = verdicts[0]
            if isinstance(verdict, Refusal):
                refused.append(verdict)
            for place, i in enumerate(group):
                outcome[i] = verdict if isinstance(verdict, Refusal) else _as_refusal(verdict, place)
        if len(refused) == len(waits):
            raise refused[0]
        return outcome

    def _taking(self, jobs: list[Job], origin: Origin, linger: bool) -> tuple[trio.Event, list[Verdicts]]:
        finished, verdicts = trio.Event(), list[Verdicts]()

        def done(verdict: Verdicts) -> None:
            verdicts.append(verdict)
            finished.set()

        self.submit(jobs, origin, done, linger=linger, edge="http")
        return finished, verdicts

    def _entries(self, jobs: Sequence[Job], epoch: Epoch) -> list[Entry]:
        now = trio.current_time()
        first = self._last_id + 1
        self._last_id += len(jobs)
        return [Entry(first + i, job.payload, job.jid, epoch, now) for i, job in enumerate(jobs)]

    def _confirm(self, jobs: Sequence[Job], origin: Origin, done: Done, *, linger: bool, since: float | None) -> None:
        epoch = origin.epoch
        ticket = Ticket(self, done, self._entries(jobs, epoch))
        for entry, job in zip(ticket.entries, jobs, strict=True):
            entry.once = job.confirmed
            entry.single = job.confirmed or (self.legacy and linger)
        self._deadlines.add(ticket, since=since)
        if jobs[0].confirmed and not self._confirming:
            self._after_earlier(ticket, origin)
        else:
            epoch.unsettled += len(jobs)
            self._forwarder.offer(ticket.entries, linger=linger and not self.legacy)

    def _after_earlier(self, ticket: Ticket, origin: Origin) -> None:
        """A job with a verdict among acknowledged ones: it leaves when those of its origin are upstream."""

        def go() -> None:
            waiting = [entry for entry in ticket.entries if not ticket.answered]
            if waiting:
                epoch = origin.epoch
                epoch.unsettled += len(waiting)
                for entry in waiting:
                    entry.epoch = epoch
                ticket.offered = True
                self._forwarder.offer_urgent(waiting)

        ticket.offered = False
        self._barriers.own(origin, go)

    def barrier(self, origin: Origin, verb: bytes, then: Callable[[], None]) -> None:
        """Call `then` when the acknowledged jobs are upstream that a command of this verb must come behind."""
        self.hear()
        self._barriers.wait(origin, verb, then)

    def stop_waiting(self, then: Callable[[], None]) -> None:
        """Take a `barrier` back."""
        self._barriers.stop_waiting(then)

    def why_not_sent(self) -> Refusal:
        """What a producer is told whose job could not be sent in time."""
        reason = self._link.down_reason
        why = f"Faktory can't be reached ({reason})" if reason is not None else "Faktory is too slow"
        return Refusal(f"not sent: {why}", retry=True)

    def drop(self, entry: Entry) -> bool:
        """Take a job back; False when it is on its way."""
        return self._forwarder.drop(entry)

    def watch(self, turn: Turn, *, since: float | None = None) -> None:
        """Answer a turn's producers when the disk takes too long."""
        if not turn.answered:
            self._deadlines.add(turn, since=since)

    def hear(self) -> None:
        """Take in what the journal has told: a producer may know before us that its job is stored."""
        if self._storing is not None:
            self._storing.hear()

    def heard_of(self, turn: Turn) -> None:
        """The journal's thread has taken a turn of its own."""
        for jobs, epoch, _, _ in turn.parts:
            self.uncommitted += len(jobs)
            epoch.unsettled += len(jobs)

    def refuse(self, reason: str, jobs: int = 1) -> None:
        """Count a refusal of ours."""
        self._counts.refuse(reason, jobs)


def _as_refusal(verdict: list[bytes] | None, place: int) -> Refusal | None:
    """The verdict on one job, from its raw reply."""
    if verdict is None or verdict[place] == OK:
        return None
    code, _, message = (error_text(verdict[place]) or repr(verdict[place])).partition(" ")
    return Refusal(message, code=code)
