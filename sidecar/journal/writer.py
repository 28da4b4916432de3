"""The thread that owns the database: group commits, mending after errors, answers, upkeep.

    queue -> collect -> commit all that waits, in one transaction -> one call back to the event loop

It never promises what isn't on the disk. After any error in a commit nothing is acknowledged until a checkpoint that
truncates the WAL and a commit that changes nothing have succeeded on the same connection; what came in meanwhile waits
up to a second and is then refused. Deletions of settled jobs go on whenever the disk lets them.
"""

from __future__ import annotations

import queue
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

from sidecar.errors import Refusal
from sidecar.journal.recovery import Recovery, rebuild
from sidecar.journal.requests import (
    Append,
    Ask,
    Bury,
    News,
    Note,
    Request,
    Requeue,
    Settle,
    Stop,
)
from sidecar.journal.space import CHECKPOINT_DUE, VACUUM_PAGES, WAL_LIMIT, Space
from sidecar.journal.store import Addition, Change, Counts, Damaged, Store
from sidecar.logs import get_logger

log = get_logger()

GROUP_BYTES = 4 * 1024 * 1024
"""Payload of one transaction; an append that is larger is stored in several."""
SETTLE_DELAY = 0.1
"""Seconds that a deletion waits for company."""
SETTLE_JOBS = 1_000
"""Deletions that are enough company."""
SETTLE_MOST = 10_000
"""Deletions in one transaction, about."""
UPKEEP_EVERY = 1.0
VACUUM_EVERY = 0.1
"""Seconds between steps of giving space back while jobs come and go; each step holds commits up for some 10 ms."""
MEND_FIRST, MEND_LAST = 0.05, 1.0
"""Seconds between attempts to mend: the first, doubled up to the last."""
STOP_PATIENCE = 2.0
"""Seconds that a stop waits for a disk that refuses."""
FULL_SAID_EVERY = 10.0
"""Seconds between two lines about a full journal: beside a slow link it is full and not full many times a second."""
RETRY_PAGE = 100
"""Flagged dead letters that are put back in one transaction."""

_FULL, _CORRUPT, _NOT_A_DB = 13, 11, 26  # SQLITE_FULL, SQLITE_CORRUPT, SQLITE_NOTADB


class Writer:
    """Runs in a thread of its own from `run` on; `put` may be called from any thread.

    Args:
        tell: hands a News to the event loop; called from the thread.
        found_flagged: tells the event loop the ids of dead letters that are to be put back.

    Attributes:
        fault: why jobs aren't accepted; None: they are.
        committing_since: monotonic second at which the present transaction began.
        clean: after `run`: all was committed and the database closed.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        *,
        tell: Callable[[News], None],
        found_flagged: Callable[[list[int]], None],
    ) -> None:
        self._store = store
        self._space = space
        self._tell = tell
        self._found_flagged = found_flagged
        self._queue: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._appends: deque[Append] = deque()
        self._settles: deque[Settle] = deque()
        self._settling = 0
        self._others: deque[Bury | Note] = deque()
        self._requeues: deque[Requeue] = deque()
        self._asks: deque[Ask] = deque()
        self._calls: list[Callable[[], None]] = []
        self._counts = store.counts()
        self._oldest: float | None = None
        self._broken: str | None = None
        self._full: str | None = None
        self._disk_full = False
        self._mend_at = 0.0
        self._mend_pause = MEND_FIRST
        self._upkeep_at = 0.0
        self._full_said_at = -FULL_SAID_EVERY
        self._was_empty = False
        self._missing = 0
        self._recovery: Recovery | None = None
        self._stop_by: float | None = None
        self._requeue_asked = False
        self.committing_since: float | None = None
        self.clean = False

    @property
    def fault(self) -> str | None:
        """Why jobs aren't accepted."""
        return self._broken or self._full

    def put(self, request: Request) -> None:
        """Queues a request; they are looked at in this order."""
        self._queue.put(request)

    def run(self) -> None:
        """Works until told to stop and everything is committed, or the disk has refused for too long."""
        while not self._finished():
            self._collect()
            now = time.monotonic()
            if self._broken is not None:
                self._mend(now)
            while self._broken is None and self._commit_due(now):
                if not self._commit(now):
                    break
            self._refuse_late(now)
            if self._asks:
                self._guard(self._answer)  # reading mostly works on a disk that can't be written
            if self._broken is None and self._requeues:
                self._guard(self._put_back)
            if self._broken is None and now >= self._upkeep_at:
                self._guard(partial(self._upkeep, now))
        self._close()

    # what to do next

    def _collect(self) -> None:
        """Takes all that is queued; waits until something is, or is due."""
        try:
            request = self._queue.get(timeout=self._pause(time.monotonic()))
        except queue.Empty:
            return
        self._sort(request)
        for _ in range(self._queue.qsize()):
            self._sort(self._queue.get_nowait())

    def _sort(self, request: Request) -> None:
        match request:
            case Append():
                self._appends.append(request)
            case Settle():
                self._settles.append(request)
                self._settling += len(request.ids)
            case Bury() | Note():
                self._others.append(request)
            case Requeue():
                self._requeues.append(request)
            case Ask():
                self._asks.append(request)
            case Stop():
                self._stop_by = time.monotonic() + STOP_PATIENCE

    def _pause(self, now: float) -> float:
        """Seconds until something is due by itself."""
        if self._stop_by is not None:
            return MEND_FIRST if self.fault else 0.0
        until = self._upkeep_at if self._broken is None else self._mend_at
        if self._settles and self._broken is None:
            until = min(until, self._settles[0].since + SETTLE_DELAY)
        if self._appends:
            until = min(until, self._appends[0].due)
        return max(0.0, until - now)

    def _finished(self) -> bool:
        if self._stop_by is None:
            return False
        if self._broken is not None:
            return time.monotonic() > self._stop_by
        return not (self._appends or self._settles or self._others) and self._queue.empty()

    def _commit_due(self, now: float) -> bool:
        if self._others or (self._appends and self._room_for_next()):
            return True
        if not self._settles:
            return False
        late = now >= self._settles[0].since + SETTLE_DELAY
        return late or self._settling >= SETTLE_JOBS or self._stop_by is not None

    def _room_for_next(self, taken: int = 0) -> bool:
        """Whether the oldest append may be stored beside `taken` bytes; says why not in `fault`."""
        lacking = self._space.lacks(taken + self._appends[0].size)
        if lacking is None and self._full is not None:
            lacking = self._space.disk_lacks()
        self._note_full(lacking)
        return lacking is None

    def _note_full(self, lacking: str | None) -> None:
        now = time.monotonic()
        if lacking is not None and self._full is None and now >= self._full_said_at + FULL_SAID_EVERY:
            self._full_said_at = now
            log.error("journal_full", message=f"Jobs are refused: {lacking}")
        self._full = lacking

    # committing

    def _commit(self, now: float) -> bool:
        """One transaction of what waits; False when it failed, and nothing of it is done."""
        taken, change = self._take_appends()
        settles = self._take_settles(change)
        others = self._take_others(change)
        jobs = sum(len(addition.payloads) for addition in change.additions)
        size = sum(len(payload) for addition in change.additions for payload in addition.payloads)
        started = time.perf_counter()
        self.committing_since = now
        try:
            removed = self._store.commit(change)
        except sqlite3.Error as error:
            self._undo(taken, settles, others)
            self._failed(error)
            return False
        finally:
            self.committing_since = None
        seconds = time.perf_counter() - started
        self._account(jobs, removed, change)
        self._space.wrote(jobs, size, removed)
        self._finish(taken, settles, others)
        self._say(jobs=jobs, seconds=seconds)
        if self._space.wal >= CHECKPOINT_DUE:
            self._guard(self._checkpoint)
        return True

    def _take_appends(self) -> tuple[list[tuple[Append, int]], Change]:
        """The appends of the next transaction, each with how many of its jobs are in it."""
        taken: list[tuple[Append, int]] = []
        change = Change()
        size, following = 0, None
        while self._appends and self._room_for_next(size):
            append = self._appends[0]
            if taken and (size + append.size > GROUP_BYTES or append.first != following):
                break
            self._appends.popleft()
            payloads = append.payloads
            if append.size > GROUP_BYTES:
                payloads = _within(payloads, GROUP_BYTES)
            taken.append((append, len(payloads)))
            change.additions.append(Addition(append.first, payloads, append.origins, append.at))
            size += append.size
            following = append.first + len(payloads)
            if len(payloads) < len(append.payloads):
                break
        return taken, change

    def _take_settles(self, change: Change) -> list[Settle]:
        settles: list[Settle] = []
        while self._settles and len(change.gone) < SETTLE_MOST:
            settle = self._settles.popleft()
            settles.append(settle)
            change.gone += settle.ids
            self._settling -= len(settle.ids)
        return settles

    def _take_others(self, change: Change) -> list[Bury | Note]:
        others = list(self._others)
        self._others.clear()
        for other in others:
            if isinstance(other, Bury):
                change.letters += other.letters
            else:
                change.attempts.update(dict.fromkeys(other.ids, other.attempts))
        return others

    def _undo(self, taken: list[tuple[Append, int]], settles: list[Settle], others: list[Bury | Note]) -> None:
        for append, _ in reversed(taken):
            append.doubtful = True
            self._appends.appendleft(append)
        self._settles.extendleft(reversed(settles))
        self._settling += sum(len(settle.ids) for settle in settles)
        self._others.extendleft(reversed(others))

    def _finish(self, taken: list[tuple[Append, int]], settles: list[Settle], others: list[Bury | Note]) -> None:
        for append, stored in taken:
            if stored == len(append.payloads):
                self._calls.append(partial(append.done, None))
                continue
            rest = append.payloads[stored:]
            append.first, append.payloads, append.doubtful = append.first + stored, rest, True
            append.origins = append.origins[stored:]
            append.size = sum(map(len, rest))
            self._appends.appendleft(append)
        self._calls += [settle.done for settle in settles if settle.done is not None]
        self._calls += [other.done for other in others if isinstance(other, Bury) and other.done is not None]

    def _account(self, added: int, removed: int, change: Change) -> None:
        counts = self._counts
        last = change.additions[-1] if change.additions else None
        self._counts = Counts(
            counts.jobs + added - removed,
            counts.dead + len(change.letters),
            counts.damaged,
            counts.last_id if last is None else last.first + len(last.payloads) - 1,
        )

    def _say(self, *, jobs: int = 0, seconds: float = 0.0) -> None:
        calls, self._calls = self._calls, []
        oldest = self._oldest if self._counts.jobs else None
        news = News(self._counts, calls, self._space.size, oldest, self._missing, self._recovery, jobs, seconds)
        self._tell(news)

    def _refuse_late(self, now: float) -> None:
        """Refuses what has waited its time for a disk that refuses, or for room."""
        stopping = self._stop_by is not None and now >= self._stop_by
        while self._appends and (now >= self._appends[0].due or stopping):
            append = self._appends.popleft()
            start = "in doubt: it may be enqueued" if append.doubtful else "not sent"
            refusal = Refusal(f"{start}: {self.fault or 'the journal is closing'}", retry=True)
            self._calls.append(partial(append.done, refusal))
        if self._calls:
            self._say()

    # errors

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (sqlite3.Error, OSError, Damaged) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A step failed: nothing is acknowledged until `_mend` has succeeded."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        self._disk_full = code == _FULL
        if isinstance(error, Damaged) or code in (_CORRUPT, _NOT_A_DB):
            self._rebuild(error)
            return
        fault = f"disk full: {error}" if self._disk_full else f"commit failed: {error}"
        if self._broken is None:
            log.error("journal_broken", message=f"Jobs are refused until the disk works again: {fault}")
            self._mend_pause = MEND_FIRST
        self._broken = f"{fault}; the journal's disk needs a look, jobs are accepted again by themselves"
        now = time.monotonic()
        if now >= self._mend_at:
            self._mend_at = now + self._mend_pause
            self._mend_pause = min(2 * self._mend_pause, MEND_LAST)

    def _rebuild(self, error: Exception) -> None:
        """The database turned out to be damaged while it was in use."""
        log.error("journal_damaged", message=f"The journal is damaged ({error}): rebuilding it from what is readable")
        self._store.close()
        self._store, self._recovery = rebuild(self._space.directory, str(error))
        self._counts = self._store.counts()

    def _mend(self, now: float) -> None:
        """Tries whether the disk works again."""
        if now < self._mend_at:
            return
        try:
            if self._disk_full:
                self._space.drop_reserve()
            if not self._store.checkpoint(truncate=True):
                raise sqlite3.OperationalError("a reader is in the way of the checkpoint")
            self._store.probe()
            self._space.wal = 0
            lacking = self._space.disk_lacks()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return
        self._broken = None
        self._note_full(lacking)
        log.info("journal_mended", message="The journal's disk works again")

    # the rest

    def _put_back(self) -> None:
        while self._requeues:
            request = self._requeues[0]
            put_back = self._store.put_back(request.flagged, request.first, time.time())
            self._requeues.popleft()
            self._requeue_asked = False
            self._upkeep_at = 0.0  # there may be more of them
            self._counts = self._store.counts()
            self._calls.append(partial(request.done, range(request.first, request.first + put_back)))
            self._say()

    def _answer(self) -> None:
        while self._asks:
            ask = self._asks[0]
            answer = ask.question(self._store)
            self._asks.popleft()
            self._counts = self._store.counts()  # a question may have set damaged rows aside
            self._calls.append(partial(ask.answer, answer))
            if not self._asks:
                self._say()

    def _checkpoint(self) -> None:
        self._store.checkpoint(truncate=False)
        self._space.wal = 0
        if self._space.wal_bytes() > WAL_LIMIT:
            self._store.checkpoint(truncate=True)

    def _upkeep(self, now: float) -> None:
        self._upkeep_at = now + UPKEEP_EVERY
        self._space.measure(self._store)
        self._note_full(self._space.disk_lacks() or self._space.lacks(1))
        if self._store.changed_elsewhere():
            self._counts = self._store.counts()
            flagged = self._store.flagged(RETRY_PAGE)
            if flagged and not self._requeue_asked:
                self._requeue_asked = True
                self._found_flagged(flagged)
        self._look_at_head()
        idle = self._counts.jobs == 0 and not self._appends
        empty, self._was_empty = idle and self._was_empty, idle
        if empty and self._space.wal >= CHECKPOINT_DUE // 4:
            self._store.checkpoint(truncate=True)
            self._space.wal = 0
        if self._space.vacuum_due(empty=empty):
            self._store.give_back(VACUUM_PAGES)
            self._store.checkpoint(truncate=True)
            self._upkeep_at = now if empty else now + VACUUM_EVERY
        self._say()

    def _look_at_head(self) -> None:
        self._oldest = self._store.oldest() if self._counts.jobs else None
        if self._oldest is None and self._counts.jobs:
            lost = self._counts.jobs
            self._missing += lost
            log.error(
                "journal_jobs_lost", message=f"{lost:,} jobs are missing from the journal: it was damaged", jobs=lost
            )
            self._store.correct(0)
            self._counts = self._store.counts()

    def _close(self) -> None:
        try:
            if self._broken is None:
                self._store.checkpoint(truncate=True)
                self.clean = True
            self._store.close()
        except sqlite3.Error as error:
            self.clean = False
            log.error("journal_close_failed", message=f"The journal was not closed cleanly: {error}")
        waiting = self._settling
        if waiting:
            log.error("journal_unsettled", message=f"{waiting:,} settled jobs are not deleted: they will be sent again")


def _within(payloads: Sequence[bytes], size: int) -> Sequence[bytes]:
    """The first of them, as many as fit into `size` bytes, one at least."""
    for number, total in enumerate(accumulate(map(len, payloads))):
        if total > size:
            return payloads[: max(1, number)]
    return payloads
