"""The thread that owns the database: group commits, mending after errors, answers, upkeep.

    queue -> collect -> commit all that waits, in one transaction -> one call back to the event loop

It never promises what isn't on the disk. After any error in a commit nothing is acknowledged until a checkpoint that
truncates the WAL and a commit that changes nothing have succeeded on the same connection; what came in meanwhile waits
up to a second and is then refused. Deletions of settled jobs go on whenever the disk lets them.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from functools import partial

import outcome

from sidecar.journal import questions
from sidecar.journal.connection import Damaged, is_damage, is_undone
from sidecar.journal.inlet import Inlet
from sidecar.journal.mending import MEND_FIRST, Mending
from sidecar.journal.pending import GROUP_BYTES, Pending
from sidecar.journal.place import Place
from sidecar.journal.reading import Counts
from sidecar.journal.recovery import Recovery, rebuild
from sidecar.journal.requests import News, Request
from sidecar.journal.space import CHECKPOINT_DUE, WAL_LIMIT, Space
from sidecar.journal.store import Change, Store
from sidecar.logs import get_logger

log = get_logger()

UPKEEP_EVERY = 1.0
VACUUM_EVERY = 0.1
"""Seconds between steps of giving space back while jobs come and go."""
STOP_PATIENCE = 2.0
"""Seconds that a stop waits for a disk that refuses."""


class Writer:
    """Runs in a thread of its own from `run` on; `put` may be called from any thread.

    Args:
        tell: lays a News out for the event loop; called from the thread, as the others.
        call: makes the event loop look at what was told.
        found_flagged: tells the event loop the ids of dead letters that are to be put back.
        found_stored: called on the event loop with the ids of jobs that were refused and are stored all the same.

    Attributes:
        call_after: seconds after which the event loop is called about jobs whose producers know already. It looks by
            itself before it does anything that depends on them.
        fault: why jobs aren't accepted; None: they are.
        busy_since: second of `clock` since which the thread works, and may hang on the disk; None while it waits.
        clean: after `run`: all was committed and the database closed.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        place: Place,
        *,
        tell: Callable[[News], None],
        call: Callable[[], None],
        found_flagged: Callable[[list[int]], None],
        found_stored: Callable[[list[int]], None],
    ) -> None:
        self._store = store
        self._space = space
        self._place = place
        self._tell = tell
        self._call = call
        self._call_by = math.inf
        self.call_after = 0.0
        self.clock = time.monotonic
        self._found_flagged = found_flagged
        self._found_stored = found_stored
        self.inlet = Inlet()
        self._pending = Pending()
        self._calls: list[Callable[[], None]] = []
        self._counts = store.counts()
        self._oldest: float | None = None
        self._ended: str | None = None
        self._broken: str | None = None
        self._mending = Mending(space)
        self._upkeep_at = 0.0
        self._was_empty = False
        self._missing = 0
        self._recovery: Recovery | None = None
        self._damage: str | None = None
        self._stop_by: float | None = None
        self._requeue_asked = False
        self.busy_since: float | None = None
        self.clean = False

    @property
    def fault(self) -> str | None:
        """Why jobs aren't accepted."""
        return self._ended or self._place.lost or self._broken or self._mending.full

    @property
    def broken(self) -> bool:
        """Whether something failed and isn't mended."""
        return self._broken is not None or self._damage is not None

    @property
    def unsettled(self) -> int:
        """Settled jobs whose deletion isn't committed."""
        return self._pending.settling

    def put(self, request: Request) -> None:
        """Queues a request; they are looked at in this order."""
        self.inlet.put(request)

    def run(self) -> None:
        """Works until told to stop and everything is committed, or the disk has refused for too long."""
        pending = self._pending
        while not self._finished():
            self.busy_since = None
            self._collect()
            now = time.monotonic()
            self._place.look(now)
            if self._broken is not None:
                self._mend(now)
            while self._broken is None and self._commit_due(now):
                self._commit()
            self._refuse_late(now)
            if pending.asks and self._damage is None:
                self._guard(self._answer)  # reading mostly works on a disk that can't be written
            if self._broken is None and pending.requeues:
                self._guard(self._put_back)
            if self._broken is None and now >= self._upkeep_at:
                self._guard(partial(self._upkeep, now))
            if now >= self._call_by:
                self._call_loop()
        self._close()

    def run_out(self) -> None:
        """After a defect in `run`: refuses jobs and deletes those that upstream has, until told to stop."""
        self._ended = "the journal has failed by a defect, and the sidecar ends; start it again"
        while not self._finished():
            self.busy_since = None
            self._upkeep_at = time.monotonic() + UPKEEP_EVERY  # there is none any more
            self._collect()
            self._calls += self._pending.refuse(self._ended, math.inf)
            if self._broken is None and self._pending.unwritten:
                self._commit()
            self._say()
        self._close()

    # what to do next

    def _collect(self) -> None:
        """Takes all that is queued; waits until something is, or is due."""
        requests = self.inlet.wait(self._pause(time.monotonic()))
        self.busy_since = self.clock()
        for request in requests:
            self._pending.add(request)
        if self._pending.stop and self._stop_by is None:
            self._stop_by = time.monotonic() + STOP_PATIENCE

    def _pause(self, now: float) -> float:
        """Seconds until something is due by itself."""
        if self._stop_by is not None:
            return MEND_FIRST if self.fault else 0.0
        until = self._upkeep_at if self._broken is None else self._mending.due
        settle_due = self._pending.settle_due()
        if settle_due is not None and self._broken is None:
            until = min(until, settle_due)
        if self._pending.appends:
            until = min(until, self._pending.appends[0].due)
        until = min(until, self._call_by)
        return max(0.0, until - now)

    def _finished(self) -> bool:
        if self._stop_by is None:
            return False
        if self._broken is not None:
            return time.monotonic() > self._stop_by
        return not self._pending.unwritten and self.inlet.empty

    def _commit_due(self, now: float) -> bool:
        self._calls += self._pending.refuse_unfit(self._space.never_fits)
        return self._pending.must_write(now) or bool(self._pending.appends and self._room_for_next())

    def _room_for_next(self, taken: int = 0) -> bool:
        """Whether the oldest append may be stored beside `taken` bytes; says why not in `fault`."""
        if self._place.lost is not None:
            return False
        size = self._pending.appends[0].size
        if size > GROUP_BYTES and taken:
            return False  # it is a transaction of its own
        lacking = self._space.lacks(taken + size)
        if lacking is None and size > GROUP_BYTES:
            lacking = self._mending.volume_lacks(size)
        if lacking is None and self._mending.full is not None:
            lacking = self._mending.disk_lacks(self._store)
        self._mending.note_full(lacking)
        return lacking is None

    # committing

    def _commit(self) -> None:
        """One transaction of what waits; when it fails nothing of it is done."""
        group = self._pending.take(self._room_for_next)
        if group.bytes > GROUP_BYTES and self._space.wal and not self._mending.wal_stands:
            self._guard(self._checkpoint)  # the WAL begins anew: it has to take all of them
        started = time.monotonic()
        try:
            removed = self._store.commit(group.change)
        except sqlite3.Error as error:
            self._pending.undo(group, doubtful=not is_undone(error))
            self._failed(error)
            return
        except BaseException:
            self._pending.undo(group, doubtful=True)
            raise
        ended = time.monotonic()
        self.busy_since = self.clock()  # the disk has answered
        self._mending.worked()
        self._account(group.jobs, removed, group.change)
        self._calls += self._pending.finish(group)
        hurried = len(self._calls) > len(group.answers)
        self._publish(group.jobs, ended - started)
        for answer in group.answers:
            answer()
        if hurried:
            self._call_loop()
        elif self._call_by > ended + self.call_after:
            self._call_by = ended + self.call_after
        self._space.wrote(group.bytes, removed)
        if self._space.wal >= CHECKPOINT_DUE and not self._mending.wal_stands:
            self._guard(self._checkpoint)

    def _account(self, added: int, removed: int, change: Change) -> None:
        counts = self._counts
        stored = change.additions or change.ahead
        last = stored[-1] if stored else None
        self._counts = Counts(
            counts.jobs + added - removed,
            counts.dead + len(change.letters),
            counts.damaged,
            counts.last_id if last is None else last.first + len(last.payloads) - 1,
        )

    def tell_now(self, call: Callable[[], None]) -> None:
        """Has something called on the event loop; from this thread."""
        self._calls.append(call)
        self._say()

    def _say(self) -> None:
        """Tells the event loop how things stand."""
        self._publish()
        self._call_loop()

    def _call_loop(self) -> None:
        self._call_by = math.inf
        self._call()

    def _publish(self, jobs: int = 0, seconds: float = 0.0) -> None:
        """Lays the news out for the event loop, which takes them when it looks or is called."""
        calls, self._calls = self._calls, []
        oldest = self._oldest if self._counts.jobs else None
        news = News(self._counts, calls, self._space.size, oldest, self._missing, self._recovery, jobs, seconds)
        self._tell(news)

    def _refuse_late(self, now: float) -> None:
        """Refuses what has waited its time for a disk that refuses, or for room."""
        stopping = self._stop_by is not None and now >= self._stop_by
        self._calls += self._pending.refuse(self.fault or "the journal is closing", math.inf if stopping else now)
        if self._calls:
            self._say()

    # errors

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (sqlite3.Error, OSError, MemoryError, Damaged) as error:
            if questions.blames_the_disk(error):
                self._failed(error)
            else:
                log.error("journal_step_failed", message=f"A step of the journal's upkeep failed: {error!r}")

    def _failed(self, error: Exception) -> None:
        """A step failed: nothing is acknowledged until `_mend` has succeeded."""
        self._place.look_now()  # a file that is gone looks like a disk that fails
        damage = isinstance(error, Damaged) or (isinstance(error, sqlite3.Error) and is_damage(error))
        if damage and self._place.lost is None:  # else the files of that name are another's
            self._rebuild(error)
            return
        fault = self._mending.failed(error, first=self._broken is None)
        self._broken = f"{fault}; the journal's disk needs a look, jobs are accepted again by themselves"

    def _rebuild(self, error: Exception) -> None:
        """The database turned out to be damaged while it was in use."""
        log.error("journal_damaged", message=f"The journal is damaged ({error}): rebuilding it from what is readable")
        self._damage = str(error)
        self._store.close()
        self._guard(self._finish_rebuild)

    def _finish_rebuild(self) -> None:
        assert self._damage is not None
        self._store, self._recovery = rebuild(self._space.directory, self._damage)
        self._damage = None
        self._place.remember()
        self._resolve()

    def _resolve(self) -> None:
        """Looks what became of the jobs whose commit failed; what is stored all the same is sent at once."""
        self._counts = self._store.counts()
        calls, found = self._pending.resolve(lambda ids: self._store.ids(ids.start - 1, ids.stop - 1, len(ids)))
        self._calls += calls
        if found:
            self._calls.append(partial(self._found_stored, found))

    def _mend(self, now: float) -> None:
        """Tries whether the disk works again: first for deletions, then for jobs."""
        if now < self._mending.due:
            return
        try:
            if self._damage is not None:
                self._finish_rebuild()
            self._mending.attempt(self._store)
            self._resolve()
            lacking = None if self._place.lost else self._mending.disk_lacks(self._store)
        except (sqlite3.Error, OSError, Damaged) as error:
            self._failed(error)
            return
        self._broken = None
        self._mending.note_full(lacking)
        if lacking is None:
            log.info("journal_mended", message="The journal's disk works again")

    # the rest

    def _put_back(self) -> None:
        while self._pending.requeues:
            request = self._pending.requeues[0]
            put_back = questions.put_back(self._store, request.flagged, request.first)
            self._pending.requeues.popleft()
            if put_back is None:
                return  # they are asked for again when somebody flags some, or at the next start
            self._requeue_asked = False
            self._counts = self._store.counts()
            self._calls.append(partial(request.done, range(request.first, request.first + put_back)))
            self._say()
        self._look_for_flagged()

    def _look_for_flagged(self) -> None:
        """Asks the event loop for ids for dead letters that are to be put back, some at a time."""
        flagged = [] if self._requeue_asked else questions.flagged(self._store)
        if flagged:
            self._requeue_asked = True
            self._found_flagged(flagged)

    def _answer(self) -> None:
        while self._pending.asks:
            ask = self._pending.asks[0]
            answer: outcome.Outcome[object] = outcome.capture(ask.question, self._store)
            if isinstance(answer, outcome.Error) and questions.blames_the_disk(answer.error):
                raise answer.error
            self._pending.asks.popleft()
            self._counts = self._store.counts()  # a question may have set damaged rows aside
            self._calls.append(partial(ask.answer, answer))
            if not self._pending.asks:
                self._say()

    def _checkpoint(self) -> None:
        self._store.checkpoint(truncate=False)
        self._space.wal = 0
        if self._space.wal_bytes() > WAL_LIMIT:
            self._store.checkpoint(truncate=True)

    def _upkeep(self, now: float) -> None:
        self._upkeep_at = now + UPKEEP_EVERY
        self._place.look_now()
        if self._place.lost is not None:
            return  # no reserve is made in a directory that is being deleted
        self._space.measure(self._store)
        self._mending.note_full(self._mending.disk_lacks(self._store) or self._space.lacks(1))
        if self._store.changed_elsewhere():
            self._counts = self._store.counts()
            self._look_for_flagged()
        self._look_at_head()
        idle = self._counts.jobs == 0 and not self._pending.appends
        empty, self._was_empty = idle and self._was_empty, idle
        if empty and self._space.wal >= CHECKPOINT_DUE // 4:
            self._store.checkpoint(truncate=True)
            self._space.wal = 0
        if self._space.vacuum_due(empty=empty):
            self._space.vacuum(self._store)
            if self._space.wal >= CHECKPOINT_DUE:
                self._checkpoint()
            self._upkeep_at = now if self.inlet.empty and not self._pending.unwritten else now + VACUUM_EVERY
        self._say()

    def _look_at_head(self) -> None:
        self._oldest = self._store.oldest() if self._counts.jobs else None
        if self._oldest is None and self._counts.jobs:
            lost = self._counts.jobs
            if lost < 0:
                self._counts = self._store.recount()
                return
            self._missing += lost
            log.error(
                "journal_jobs_lost", message=f"{lost:,} jobs are missing from the journal: it was damaged", jobs=lost
            )
            self._store.correct(0)
            self._counts = self._store.counts()

    def _close(self) -> None:
        self._place.look_now()
        if self._place.lost is not None and self._damage is None:
            self._place.save(self._store, self._counts)
            return
        try:
            if self._broken is None:
                self._store.checkpoint(truncate=True)
                self.clean = True
            if self._damage is None:
                self._store.close()
        except sqlite3.Error as error:
            self.clean = False
            log.error("journal_close_failed", message=f"The journal was not closed cleanly: {error}")
        if self.unsettled:
            log.error(
                "journal_unsettled", message=f"{self.unsettled:,} settled jobs are not deleted: they will be sent again"
            )
