"""Jobs on their way to the disk, with those who wait for it: what is handed to the journal together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sidecar.errors import Refusal
from sidecar.intake.answers import Done, Taker
from sidecar.intake.deadlines import ANSWER_WITHIN
from sidecar.jobs import Epoch
from sidecar.journal import Journal
from sidecar.protocol.jobs import Job
from sidecar.supervision import guarded

SLOW_COMMIT = Refusal(
    "in doubt: the journal's disk did not answer in time; the job may have been stored and may be enqueued", retry=True
)


class Turn:
    """The jobs of one turn of the event loop, on their way to the disk: one commit, one answer to each command.

    Attributes:
        parts: of each command its jobs, their epoch, who is told, and the edge that it came by.
        linger: whether all of them do.
        first: the id of the first job, once they were handed over.
        since: when the oldest of the commands arrived (trio's clock); None: now.
    """

    __slots__ = ("_journal", "_taker", "answered", "first", "linger", "parts", "since")

    def __init__(self, taker: Taker[Turn], journal: Journal) -> None:
        self._taker = taker
        self._journal = journal
        self.parts: list[tuple[Sequence[Job], Epoch, Done, str]] = []
        self.linger = True
        self.answered = False
        self.first = 0
        self.since: float | None = None

    @property
    def age(self) -> float:
        """Seconds since the jobs are on disk, when the event loop hears of it."""
        return 0.0

    def hand_over(self) -> None:
        """Give the jobs to the journal."""
        payloads: list[bytes] = []
        origins: list[int] = []
        for jobs, epoch, _, _ in self.parts:
            payloads += [job.payload for job in jobs]
            origins += [epoch.number] * len(jobs)
        self._append(payloads, origins)

    def _append(self, payloads: list[bytes], origins: list[int]) -> None:
        self.first = self._journal.append(payloads, origins, self._committed)
        self._taker.watch(self, since=self.since)

    def _committed(self, refusal: Refusal | None) -> None:
        guarded("intake", self._taker.stored, self, refusal)  # what became of the jobs is true all the same
        self._answer(refusal)
        self.parts = []  # the deadlines may still refer to this turn, and need not keep its jobs

    def _answer(self, refusal: Refusal | None) -> None:
        if not self.answered:
            self.answered = True
            for _, _, done, _ in self.parts:
                guarded("answer", done, refusal)

    def expire(self) -> None:
        """The disk takes longer than a producer waits."""
        self._taker.refuse("slow_disk", sum(len(jobs) for jobs, _, _, _ in self.parts))
        self._answer(SLOW_COMMIT)


class LentTurn(Turn):
    """What the journal's thread has read itself; the event loop hears of it when it is over."""

    __slots__ = ("_lent", "_lock", "_read_at", "_stored_at", "_used")

    def __init__(self, taker: Taker[Turn], journal: Journal) -> None:
        super().__init__(taker, journal)
        self._lent: list[Callable[[], None]] = []
        self._lock = threading.Lock()  # who has it looks at `answered` and answers
        self._used = False
        self._read_at = time.monotonic()
        self._stored_at: float | None = None  # monotonic

    @property
    def age(self) -> float:
        return 0.0 if self._stored_at is None else time.monotonic() - self._stored_at

    def add(self, jobs: Sequence[Job], epoch: Epoch, done: Done, answer: Callable[[], None]) -> None:
        """A command: `answer` tells its client at once, from the thread, that all is well."""
        self.parts.append((jobs, epoch, done, "fwp"))
        self._lent.append(answer)

    def _append(self, payloads: list[bytes], origins: list[int]) -> None:
        self.first = self._journal.append_here(payloads, origins, self._committed, self._at_once)

    def _at_once(self) -> None:
        self._stored_at = time.monotonic()
        with self._lock:
            if not self.answered and self._stored_at - self._read_at < ANSWER_WITHIN:  # else the loop knows what to do
                self._used = True
                for answer in self._lent:
                    answer()

    def _committed(self, refusal: Refusal | None) -> None:
        self._taker.heard_of(self)
        super()._committed(refusal)

    def _answer(self, refusal: Refusal | None) -> None:
        with self._lock:
            super()._answer(refusal)

    def expire(self) -> None:
        """The disk takes longer than a producer waits."""
        if not self._used:  # else the event loop is about to hear of it
            super().expire()
