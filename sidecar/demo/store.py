"""What the embedded Faktory holds: queues, sets, reservations, in memory only.

Behaves as Faktory 1.10 does (manager/ and storage/ of contribsys/faktory), with two of its quirks on purpose:
`PUSH` with a `retry` changes the default for all jobs without one, and `FLUSH` forgets neither queue names nor
what workers hold.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from sidecar.demo.workunits import Failure, WorkUnit, decode_one, encode, parse_timestamp, quoted, timestamp

QUEUE_NAME = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)
FETCH_WAIT = 2.0  # seconds that a FETCH on empty queues blocks (manager/fetch.go)
SHORTEST_RESERVATION, DEFAULT_RESERVATION, LONGEST_RESERVATION = 60, 1800, 86_400  # seconds
DEAD_TTL = 180 * 86_400.0  # seconds that a dead job is kept
DEFAULT_RETRY = 25
MIN_JID_BYTES = 8


class Refused(Exception):
    """Why a command is refused; the text follows `-ERR `."""


@dataclass(slots=True)
class Reservation:
    """A job that a worker has fetched and neither acknowledged nor failed."""

    job: WorkUnit
    wid: str
    expires: float  # Unix time
    listed: bool = True  # false once FLUSH emptied the set of running jobs


@dataclass(slots=True, eq=False)
class _Waiter:
    """A FETCH that blocks on empty queues."""

    queues: list[str]
    ready: trio.Event = field(default_factory=trio.Event)
    job: WorkUnit | None = None


class Store:
    """The state of an embedded Faktory; outlives a stop and restart of its listener.

    Args:
        now: Unix time in seconds, for timestamps and schedules.
    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self.now = now
        self.queues: dict[str, deque[WorkUnit]] = {}
        self.sets: dict[str, dict[bytes, float]] = {"scheduled": {}, "retries": {}, "dead": {}}
        self.working: dict[str, Reservation] = {}
        self.paused: set[str] = set()
        self.processed = 0
        self.failures = 0
        self.default_retry = DEFAULT_RETRY
        self._waiters: dict[str, dict[_Waiter, None]] = {}

    def push(self, job: WorkUnit, *, stamp: str | None = None) -> None:
        """Queues or schedules one job.

        Args:
            stamp: the current time as text, where the caller has it already.

        Raises:
            Refused: with the words of Faktory.
        """
        if len((job.jid or "").encode()) < MIN_JID_BYTES:
            raise Refused("jobs must have a reasonable jid parameter")
        if not job.jobtype:
            raise Refused("jobs must have a jobtype parameter")
        if job.args is None:
            raise Refused("jobs must have an args parameter")
        if (job.reserve_for or 0) > LONGEST_RESERVATION:
            raise Refused("jobs cannot be reserved for more than one day")
        stamp = stamp or timestamp(self.now())
        job.complete(now=stamp, retry=self.default_retry)
        if job.at:
            try:
                due = parse_timestamp(job.at)
            except ValueError as error:
                raise Refused(f"invalid timestamp for 'at': {quoted(job.at)}: {error}") from None
            if due > self.now():
                self.sets["scheduled"][encode(job)] = due
                return
        self._enqueue(job, stamp)

    def _enqueue(self, job: WorkUnit, stamp: str) -> None:
        name = job.queue or ""
        queue = self.queues.get(name)
        if queue is None:
            if not QUEUE_NAME.fullmatch(name):
                raise Refused(rf"cannot get {quoted(name)} queue: queue names must match \A[a-zA-Z0-9._-]+\z")
            queue = self.queues[name] = deque()
        job.enqueued_at = stamp
        waiting = self._waiters.get(name)
        if not waiting:
            queue.append(job)
            return
        waiter = next(iter(waiting))
        self._stop_waiting(waiter)
        waiter.job = job
        waiter.ready.set()

    async def fetch(self, queues: list[str], wid: str) -> WorkUnit | None:
        """The next job of the first queue that has one, reserved; waits up to 2 s. None: nothing came."""
        if not queues:
            raise Refused("must call fetch with at least one queue")
        active = [name for name in queues if name not in self.paused]
        if not active:
            await trio.sleep(FETCH_WAIT)
            return None
        for name in active:
            if self.queues.get(name):
                return self._reserve(self.queues[name].popleft(), wid)
        job = await self._wait(active)
        return None if job is None else self._reserve(job, wid)

    async def _wait(self, queues: list[str]) -> WorkUnit | None:
        waiter = _Waiter(queues)
        for name in queues:
            self._waiters.setdefault(name, {})[waiter] = None
        try:
            with trio.move_on_after(FETCH_WAIT):
                await waiter.ready.wait()
        except BaseException:
            if waiter.job is not None:
                self.queues[waiter.job.queue or ""].appendleft(waiter.job)
            raise
        finally:
            self._stop_waiting(waiter)
        return waiter.job

    def _stop_waiting(self, waiter: _Waiter) -> None:
        for name in waiter.queues:
            self._waiters[name].pop(waiter, None)

    def _reserve(self, job: WorkUnit, wid: str) -> WorkUnit:
        seconds = max(SHORTEST_RESERVATION, job.reserve_for or DEFAULT_RESERVATION)
        self.working[job.jid or ""] = Reservation(job, wid, self.now() + seconds)
        return job

    def acknowledge(self, jid: str) -> None:
        """Ends a reservation; an unknown jid is no error."""
        if self.working.pop(jid, None) is not None:
            self.processed += 1

    def fail(self, jid: str, *, message: str, errtype: str, backtrace: list[str]) -> None:
        """Ends a reservation with a failure: the job is retried later, or dead, or forgotten (`retry` 0)."""
        reservation = self.working.pop(jid, None)
        if reservation is None:
            raise Refused(f"Job not found {jid}")
        if not reservation.listed:
            return
        self.processed += 1
        self.failures += 1
        job = reservation.job
        retry = DEFAULT_RETRY if job.retry is None else job.retry
        failure = job.failure
        if failure is None:
            failure = Failure(failed_at=timestamp(self.now()), retry_count=0, remaining=retry)
            job.failure = failure
        else:
            failure.retry_count = (failure.retry_count or 0) + 1
            failure.remaining = max(0, (failure.remaining or 0) - 1)
        failure.message = message.strip()[:1000] or "unknown"
        failure.errtype = errtype.strip()[:100] or "unknown"
        failure.backtrace = backtrace[:50] or None
        if retry != 0:
            self._retry_or_bury(job, failure, retry)

    def _retry_or_bury(self, job: WorkUnit, failure: Failure, retry: int) -> None:
        count = failure.retry_count or 0
        if count >= retry:
            self.sets["dead"][encode(job)] = self.now() + DEAD_TTL
            return
        due = self.now() + count**4 + 15 + random.randrange(30) * (count + 1)  # noqa: S311 - a spread, no secret
        failure.next_at = timestamp(due)
        self.sets["retries"][encode(job)] = due

    def tick(self) -> None:
        """Queues what is due, fails expired reservations, forgets old dead jobs. Faktory does so every few seconds."""
        now = self.now()
        for name in ("scheduled", "retries"):
            for payload in [payload for payload, due in self.sets[name].items() if due <= now]:
                del self.sets[name][payload]
                self._enqueue(decode_one(payload), timestamp(now))
        dead = self.sets["dead"]
        for payload in [payload for payload, due in dead.items() if due <= now]:
            del dead[payload]
        for jid in [jid for jid, held in self.working.items() if held.expires <= now]:
            self.fail(jid, message="Faktory job reservation expired", errtype="ReservationExpired", backtrace=[])

    def pause(self, name: str) -> None:
        """Hands out no jobs of this queue; an unknown name is ignored."""
        if name in self.queues:
            self.paused.add(name)

    def resume(self, name: str) -> None:
        """Ends `pause`."""
        if name in self.queues:
            self.paused.discard(name)

    def remove(self, name: str) -> None:
        """Drops a queue with its jobs; an unknown name is ignored."""
        self.queues.pop(name, None)
        self.paused.discard(name)

    def latency(self, name: str) -> float:
        """Age in seconds of the oldest job of a queue; 0 when it is empty or unknown."""
        queue = self.queues.get(name)
        return max(0, self.now() - parse_timestamp(queue[0].enqueued_at or "")) if queue else 0

    def flush(self) -> None:
        """Drops all jobs and counts."""
        for queue in self.queues.values():
            queue.clear()
        for entries in self.sets.values():
            entries.clear()
        for reservation in self.working.values():
            reservation.listed = False
        self.processed = self.failures = 0

    def requeue(self, payloads: Iterable[bytes]) -> None:
        """Puts jobs of a set back into their queues at once."""
        for payload in payloads:
            job = decode_one(payload)
            self._enqueue(job, job.enqueued_at or timestamp(self.now()))
