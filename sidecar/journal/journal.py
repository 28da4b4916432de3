"""The event loop's side of the journal: never blocks, never touches the disk after `open`."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import outcome
import trio

from sidecar.errors import Refusal, StartError
from sidecar.journal import questions
from sidecar.journal.host import ask_sqlite, is_refused_write, why
from sidecar.journal.inlet import Inlet
from sidecar.journal.lock import Lock
from sidecar.journal.place import Place
from sidecar.journal.recovery import Recovery, make_directory, open_store, prepare
from sidecar.journal.requests import Append, Ask, Bury, Committed, News, Note, Requeue, Settle, Stop
from sidecar.journal.seal import DeadLetter, Row
from sidecar.journal.space import RESERVE_NAME, ROW_OVERHEAD, Space, bound_of
from sidecar.journal.store import Store
from sidecar.journal.volume import file_system, what_is_lost
from sidecar.journal.writer import Writer
from sidecar.logs import defect, get_logger
from sidecar.supervision import guarded

log = get_logger()

PATIENCE = 1.0
"""Seconds that an append waits for a disk that refuses, or for room, before it is refused."""
STALLED = 4.0
"""Seconds after which a step on the disk is called stalled."""
READ_ROWS = 1_000
READ_BYTES = 4 * 1024 * 1024

Answer = TypeVar("Answer")


class Journal:
    """The durable store of jobs that are acknowledged and not yet settled.

    Attributes:
        recovery: what was found at the start, or when damage came to light later.
        waiting: jobs that are stored; a settled one counts until its deletion is committed.
        dead: dead letters.
        damaged: rows that were set aside because they aren't what was written.
        missing: jobs that were counted and turned out not to be there when the journal had run empty.
        size: bytes on disk of database, WAL and reserve, about a second old.
        last_id: highest id that was committed.
        oldest: when the oldest stored job was appended, unix seconds, about a second old.
        requeued: called with the ids of dead letters that became jobs again (they are stored by then).
        recovered: called with the ids of jobs that are stored and that nobody knew of any more.
        set_aside: called with the ids of stored jobs that turned out to be damaged and left the journal.
        failed: set when a defect has ended the thread: no job is stored or read any more, only deleted.
        on_commit: called with the jobs a transaction added and the seconds it took.
    """

    def __init__(self, store: Store, space: Space, place: Place, lock: Lock, recovery: Recovery) -> None:
        """Use `open`."""
        counts = store.counts()
        self.recovery = recovery
        self.waiting = counts.jobs
        self.dead = counts.dead
        self.damaged = counts.damaged
        self.missing = 0
        self.last_id = counts.last_id
        self.size = space.size
        self.oldest = store.oldest()
        self.requeued: Callable[[Sequence[int]], None] | None = None
        self.recovered: Callable[[Sequence[int]], None] | None = None
        self.set_aside: Callable[[Sequence[int]], None] | None = None
        self.on_commit: Callable[[int, float], None] | None = None
        self._numbering = threading.Lock()  # ids rise in the order of the queue
        self._first = self._next = store.highest_id() + 1
        self._lock, self._place = lock, place
        self._leaving: dict[int, Sequence[int]] = {}
        self._leavings = 0
        self._told: deque[News] = deque()
        self._writer = Writer(
            store,
            space,
            place,
            tell=self._told.append,
            call=self._call,
            found_flagged=self._found_flagged,
            found_stored=self._tell_stored,
        )
        self._token: trio.lowlevel.TrioToken | None = None
        self._called = False  # the event loop knows that something was told
        self._hearing = False
        self._closed = False
        self._taking = True
        self._ended = trio.Event()
        self.failed = trio.Event()

    @classmethod
    def open(cls, directory: Path, *, upstream: str, max_bytes: int, adopt: bool = False) -> Journal:
        """Opens a directory's journal, mending it where needed. Blocks: call it before serving, or in a thread.

        Args:
            upstream: the server that the jobs are for, without its password.
            max_bytes: bound of the directory, in bytes.
            adopt: take over jobs that were meant for another upstream.

        Raises:
            StartError: one line on what is wrong and what to do.
        """
        lock: Lock | None = None
        store: Store | None = None
        try:
            ask_sqlite()
            make_directory(directory)
            lock = Lock(directory)
            store, recovery = open_store(directory, unclean=lock.unclean, prepare=partial(prepare, upstream, adopt))
            space = Space(directory, lock.directory, bound_of(max_bytes))
            lacking = space.disk_lacks()
            if lacking is not None:
                log.error("journal_full", message=f"Jobs are refused: {lacking}")
            space.measure(store)
            lost = what_is_lost(file_system(directory))
            if lost is not None:
                log.warning("journal_volume", message=f"The journal's volume keeps less than it should: {lost}")
            return cls(store, space, Place(directory, lock), lock, replace(recovery, replaced=lock.replaced))
        except BaseException as error:
            if store is not None:
                store.close()
            cramped = is_refused_write(error) and (directory / RESERVE_NAME).exists()
            if cramped:  # a full disk has no room even for the lock's text: what the reserve is for
                (directory / RESERVE_NAME).unlink()
            if lock is not None:
                lock.release(clean=(cramped or isinstance(error, StartError)) and not (lock.unclean or lock.replaced))
            if cramped:
                return cls.open(directory, upstream=upstream, max_bytes=max_bytes, adopt=adopt)
            if isinstance(error, OSError | sqlite3.Error):
                raise StartError(f"journal {directory} can't be opened: {why(error)}") from error
            raise

    @property
    def fault(self) -> str | None:
        """Why jobs aren't being accepted, None when they are."""
        if self._closed:
            return "the journal is closed"
        if (busy := self.busy_for) > STALLED:
            return f"disk stalled: the journal's disk has not answered for {busy:.0f} s"
        return self._writer.fault or ("the journal has failed by a defect" if self.failed.is_set() else None)

    @property
    def broken(self) -> bool:
        """Whether the disk is in trouble: it refuses, or hangs."""
        return self._closed or self._writer.broken or self.busy_for > STALLED

    @property
    def unsettled(self) -> int:
        """After `run`: settled jobs that could not be deleted; `waiting` counts them."""
        return self._writer.unsettled

    @property
    def saved_in(self) -> Path | None:
        """After `run`: where its jobs are, since its path named something else at the end; None: in the journal."""
        return self._place.elsewhere

    @property
    def inlet(self) -> Inlet:
        """Where sockets can be lent to the thread."""
        return self._writer.inlet

    def use_clock(self, clock: Callable[[], float]) -> None:
        """What tells how long the disk takes (seconds): a clock that stands still while the process is frozen."""
        self._writer.clock = clock

    def call_after(self, seconds: float) -> None:
        """How late the event loop may hear of jobs that the thread has taken and answered itself."""
        self._writer.call_after = seconds

    @property
    def busy_for(self) -> float:
        """Seconds for which the thread has been working on one thing, which may be the disk's fault; 0: it waits."""
        since = self._writer.busy_since
        return 0.0 if since is None else self._writer.clock() - since

    @property
    def takes(self) -> bool:
        """Whether jobs would be stored right now, as the thread sees it."""
        return self._taking and self._writer.fault is None

    def stop_taking(self) -> None:
        """The thread hands jobs back that come to the sockets lent to it; what is appended is stored as ever."""
        self._taking = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stores what is appended, until cancelled; then commits all that is queued and closes.

        What is appended before it started is stored when it starts.
        """
        self._token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(target=self._work, name="journal", daemon=True)
        thread.start()
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._closed = True
            self._taking = False
            self._writer.put(Stop())
            with trio.CancelScope(shield=True):
                await self._ended.wait()
            thread.join()
            self.hear()
            self._writer.inlet.close()
            self._lock.release(clean=self._writer.clean)

    def _work(self) -> None:
        assert self._token is not None
        try:
            self._writer.run()
        except BaseException as error:
            defect("journal", error, "no job is taken any more, what memory holds is delivered, and the sidecar ends")
            self._token.run_sync_soon(self.failed.set)
            guarded("journal", self._writer.run_out)
        self._token.run_sync_soon(self._ended.set)

    # what the intake and the forwarder ask

    def append(self, payloads: Sequence[bytes], origins: Sequence[int], done: Committed) -> int:
        """Stores jobs, all of them or none; `done` is called on the event loop once they are synced (None), or refused.

        Args:
            payloads: as they go upstream; at least one.
            origins: order domain of each, 1 to 2**63 - 1, given back by `read` in this run (0 after a restart).

        Returns:
            the id of the first; the others follow without a gap. Ids rise in the order of the calls.
        """
        if self._closed or self.failed.is_set():
            done(Refusal("not sent: the journal is closed", retry=True))
            return self._next
        return self._append(payloads, origins, done, None)

    def append_here(
        self, payloads: Sequence[bytes], origins: Sequence[int], done: Committed, at_once: Callable[[], None]
    ) -> int:
        """As `append`, on the journal's thread: for what it has read from a socket that was lent to its inlet.

        Args:
            at_once: called on the thread when they are synced, ahead of `done`: it must neither block nor raise.
        """
        return self._append(payloads, origins, done, at_once)

    def _append(
        self, payloads: Sequence[bytes], origins: Sequence[int], done: Committed, at_once: Callable[[], None] | None
    ) -> int:
        size = sum(map(len, payloads)) + ROW_OVERHEAD * len(payloads)
        due = time.monotonic() + PATIENCE
        with self._numbering:
            first = self._next
            self._next = first + len(payloads)
            self._writer.put(Append(first, payloads, origins, time.time(), done, due, size, at_once))
        return first

    def settle(self, ids: Sequence[int], done: Callable[[], None] | None = None) -> None:
        """Upstream accepted these jobs: delete them, within 0.1 s or 1,000 jobs; `done` when that is committed."""
        self._writer.put(Settle(ids, self._leave(ids, done), time.monotonic()))

    def bury(self, letters: Sequence[DeadLetter], done: Callable[[], None] | None = None) -> None:
        """These jobs become dead letters, each in the transaction that removes the job."""
        self._writer.put(Bury(letters, self._leave([letter.id for letter in letters], done)))

    def leaving(self) -> list[int]:
        """Ids of the jobs whose deletion isn't known to be on the disk."""
        return [number for ids in self._leaving.values() for number in ids]

    def _leave(self, ids: Sequence[int], done: Callable[[], None] | None) -> Callable[[], None]:
        self._leavings += 1
        self._leaving[self._leavings] = ids
        return partial(self._left, self._leavings, done)

    def _left(self, leaving: int, done: Callable[[], None] | None) -> None:
        del self._leaving[leaving]
        if done is not None:
            done()

    def note_attempts(self, ids: Sequence[int], attempts: int) -> None:
        """These jobs have been tried so often; remembered over a crash until they are settled."""
        self._writer.put(Note(ids, attempts))

    async def read(self, after: int, limit: int = READ_ROWS, max_bytes: int = READ_BYTES) -> list[Row]:
        """Stored jobs with an id above `after`, in order; an empty list means that there are none.

        Damaged ones are set aside (`set_aside` tells their ids) and left out.

        Args:
            limit: most jobs.
            max_bytes: most bytes of payload, but for a first one that is larger.
        """
        while True:
            rows, bad, last = await self._ask(partial(questions.page, after=after, limit=limit, max_bytes=max_bytes))
            self._tell_damaged(bad)
            self._forget_origins(rows)
            if rows or last == after:
                return rows
            after = last

    async def fetch(self, ids: Sequence[int], max_bytes: int = READ_BYTES) -> tuple[list[Row], Sequence[int]]:
        """The first of these jobs as far as they are stored and sound, by rising id.

        Args:
            ids: rising.
            max_bytes: most bytes of payload, but for a first one that is larger.

        Returns:
            the jobs, and the ids that are left for another time.
        """
        rows, bad, looked = await self._ask(partial(questions.chosen, ids=ids, max_bytes=max_bytes))
        self._tell_damaged(bad)
        self._forget_origins(rows)
        return rows, ids[looked:]

    async def ids(self, after: int, last: int, limit: int) -> list[int]:
        """Ids of stored jobs above `after` and not above `last`, rising, at most `limit`."""
        return await self._ask(partial(Store.ids, after=after, last=last, limit=limit))

    async def recount(self) -> None:
        """Makes the counts fit the rows, which takes a scan."""
        await self._ask(Store.recount)

    async def put_aside(self, ids: Sequence[int]) -> None:
        """These jobs are what was written, and yet can't be sent: out of the way with them, as damaged ones."""
        self._tell_damaged(await self._ask(partial(questions.set_aside, ids=ids)))

    async def letters(self, limit: int, max_bytes: int = READ_BYTES) -> list[DeadLetter]:
        """The latest dead letters that are sound, the newest first; at most `limit` and about `max_bytes`."""
        return await self._ask(partial(Store.latest_letters, limit=limit, max_bytes=max_bytes))

    def _forget_origins(self, rows: list[Row]) -> None:
        """The origins of an earlier run mean nothing in this one."""
        for row in rows:
            if row.id >= self._first:
                break
            row.origin = 0

    async def _ask(self, question: Callable[[Store], Answer]) -> Answer:
        """What the writer thread finds out, between two commits; raises what the question raised."""
        task = trio.lowlevel.current_task()
        waiting = True

        def answered(answer: outcome.Outcome[object]) -> None:
            if waiting:
                trio.lowlevel.reschedule(task, answer)

        def abort(_: object) -> trio.lowlevel.Abort:
            nonlocal waiting
            waiting = False
            return trio.lowlevel.Abort.SUCCEEDED

        self._writer.put(Ask(question, answered))
        return cast(Answer, await trio.lowlevel.wait_task_rescheduled(abort))

    # what the thread tells

    def tell(self, call: Callable[[], None]) -> None:
        """Has something called on the event loop, after all that was told before; from the journal's thread."""
        self._writer.tell_now(call)

    def _call(self) -> None:
        assert self._token is not None
        if not self._called:
            self._called = True
            self._token.run_sync_soon(self.hear)

    def hear(self) -> None:
        """Take in what the thread has told. It comes by itself soon; who needs it now asks for it."""
        self._called = False
        if self._hearing:
            return
        self._hearing = True
        try:
            while self._told:
                guarded("news of the journal", self._hear, self._told.popleft())
        finally:
            self._hearing = False

    def _hear(self, news: News) -> None:
        counts = news.counts
        self.waiting, self.dead, self.damaged = counts.jobs, counts.dead, counts.damaged
        self.last_id, self.size, self.oldest = counts.last_id, news.size, news.oldest
        self.missing = news.missing
        if news.recovery is not None:
            self.recovery = news.recovery
        for call in news.calls:
            guarded("answer of the journal", call)
        if news.seconds and self.on_commit is not None:
            self.on_commit(news.jobs, news.seconds)

    def _found_flagged(self, flagged: list[int]) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._requeue, flagged)

    def _requeue(self, flagged: list[int]) -> None:
        with self._numbering:
            first = self._next
            self._next += len(flagged)
            self._writer.put(Requeue(flagged, first, self._tell_requeued))

    def _tell_requeued(self, ids: range) -> None:
        log.info("dead_letters_requeued", message=f"{len(ids):,} dead letters are jobs again", jobs=len(ids))
        if ids and self.requeued is not None:
            self.requeued(ids)

    def _tell_stored(self, ids: list[int]) -> None:
        log.warning(
            "journal_jobs_came_back",
            message=f"{len(ids):,} jobs that were refused as in doubt are stored all the same: they are sent",
            jobs=len(ids),
        )
        if self.recovered is not None:
            self.recovered(ids)

    def _tell_damaged(self, ids: list[int]) -> None:
        if not ids:
            return
        log.error(
            "journal_rows_damaged",
            message=f"{len(ids):,} jobs in the journal are damaged: set aside, not sent",
            jobs=len(ids),
            first_id=ids[0],
        )
        if self.set_aside is not None:
            self.set_aside(ids)
