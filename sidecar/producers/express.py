"""Plain pushes of producers that have nothing else to say: read, stored and answered by the journal's thread.

A push that goes through the event loop costs two more wake-ups and trio's bookkeeping, which beside a fast disk is most
of what its producer waits for. So the connection of a producer that has just pushed, and is owed nothing, is lent to
the thread that will have to store the next push anyway. The thread hands everything but certain, unconfirmed pushes
back untouched. The event loop hears of what was stored a moment later, does all the bookkeeping, and takes the
connections back when the disk stalls.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import cast

import trio

from sidecar.clock import running_clock
from sidecar.errors import Refusal
from sidecar.intake import Intake, LentTurn, Verdicts
from sidecar.jobs import Origin
from sidecar.journal import Journal
from sidecar.journal.inlet import Source
from sidecar.logs import defect
from sidecar.producers.channel import Loan, PlainChannel
from sidecar.producers.replies import ReplyQueue, Slot
from sidecar.producers.riders import MOST_BYTES, Rider, certain, rotated
from sidecar.protocol.pushes import STAMP_STEP
from sidecar.protocol.replies import OK

LOOK_EVERY, STALLED = 0.5, 1.0
"""Seconds between looks at the thread, and after which its connections are taken back: a producer is answered in 4."""
PAUSE = 0.001
"""Seconds that the thread leaves to the event loop, which hasn't come to itself yet."""


HEARD_SOONEST, HEARD_LATEST, HEARD_WITHIN = 0.003, 0.010, 0.2
"""When the event loop hears of what was stored: seconds, and the share of the linger, which runs from the commit on.
16 producers got a tenth more done with 3 ms than with 1, and 3 % more with 10."""


class Express:
    """The connections that are lent, and what the thread does with them.

    Args:
        journal: whose thread it is.
        linger: seconds that a batch waits.
    """

    def __init__(self, intake: Intake, journal: Journal, *, linger: float) -> None:
        self._intake = intake
        self.journal = journal
        self._place = 0  # counts on, so that nobody is always the last
        self._turn: LentTurn | None = None  # the last one that the thread has handed over
        running = running_clock()
        self._unseen = running.unseen if running is not None else float
        journal.inlet.read = self._read
        journal.call_after(min(max(linger * HEARD_WITHIN, HEARD_SOONEST), HEARD_LATEST))

    def rider(self, channel: PlainChannel, replies: ReplyQueue, origin: Origin) -> LentRider:
        """A connection that may be lent from now on."""
        return LentRider(self, channel, replies, origin)

    async def run(self) -> None:
        """Take the connections back whenever the disk stalls, until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY)
            if self.journal.busy_for > STALLED or self.journal.failed.is_set():
                self._take_back()

    def _take_back(self) -> None:
        riders = self.journal.inlet.unwatch_all()
        since = trio.current_time() - self.journal.busy_for
        self._intake.hear()
        turn, self._turn = self._turn, None
        if turn is not None:
            self._intake.watch(turn, since=since)
        for rider in riders:
            cast(LentRider, rider).get_off(since)

    def _read(self, ready: Sequence[Source]) -> None:
        """On the thread: what these have sent. A defect here ends their connections and nothing else."""
        if self._unseen() > LOOK_EVERY + STALLED:
            time.sleep(PAUSE)  # after a freeze the event loop looks first whom it is too late to answer
            return
        try:
            self._take(ready)
        except Exception as error:
            defect("connection", error, "what came together is closed")
            for rider in cast("Sequence[LentRider]", ready):
                if self.journal.inlet.unwatch(rider):
                    self.journal.tell(partial(rider.hand_back, b""))

    def _take(self, ready: Sequence[Source]) -> None:
        turn: LentTurn | None = None
        clock = time.time()
        takes = self.journal.takes
        size = 0
        riders = rotated(cast("Sequence[LentRider]", ready), self._place)
        for rider in riders:
            if size > MOST_BYTES:
                break
            self._place += 1
            data = rider.read()
            if data is None:
                continue
            size += len(data)
            jobs = certain(data, clock) if takes else None
            loan = rider.borrow(OK * len(jobs)) if jobs is not None else None
            if jobs is None or loan is None:
                self.journal.inlet.unwatch(rider)
                self.journal.tell(partial(rider.hand_back, data))
                continue
            if turn is None:
                turn = LentTurn(self._intake, self.journal)
            turn.add(jobs, rider.origin.epoch, partial(rider.answer, loan, len(jobs)), loan.use)
            clock += len(jobs) * STAMP_STEP
        if turn is not None:
            self._turn = turn
            turn.hand_over()


class LentRider(Rider):
    """A connection that can be lent to the thread."""

    def __init__(self, express: Express, channel: PlainChannel, replies: ReplyQueue, origin: Origin) -> None:
        super().__init__(express.journal.inlet, channel, origin)
        self._replies = replies
        self._loan: Loan | None = None
        self._slot: Slot | None = None

    def get_off(self, since: float) -> None:
        """The disk stalls. What the thread has read and not answered is owed before all that follows."""
        self.stalled_since = since
        if self._loan is not None:
            self._slot = self._replies.slot()
            self._slot.loan = self._loan
        self.hand_back(None)

    def answer(self, loan: Loan, jobs: int, verdicts: Verdicts) -> None:
        """The thread has answered these pushes, or hasn't."""
        data = verdicts.line() * jobs if isinstance(verdicts, Refusal) else OK * jobs
        if self._loan is loan:
            self._loan = None
        if self._slot is not None and self._slot.loan is loan:
            slot, self._slot = self._slot, None
            slot.fill(data)
        else:
            self.channel.take_back(loan, data)

    # on the thread

    def borrow(self, reply: bytes) -> Loan | None:
        """The right to answer; None when earlier replies are not sent."""
        self._loan = self.channel.lend(reply)
        return self._loan
