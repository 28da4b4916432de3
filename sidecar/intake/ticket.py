"""Jobs whose producer waits for upstream's verdict on each."""

from __future__ import annotations

from functools import partial
from typing import Never

from sidecar.errors import Refusal
from sidecar.intake.answers import Done, Taker
from sidecar.jobs import Entry
from sidecar.protocol.replies import OK
from sidecar.supervision import guarded

JOB_IN_DOUBT = Refusal("in doubt: Faktory did not answer in time; the job may have been enqueued")


class Ticket:
    """One command's jobs, from their offer to their verdicts."""

    __slots__ = ("_done", "_open", "_replies", "_taker", "answered", "entries", "offered")

    def __init__(self, taker: Taker[Never], done: Done, entries: list[Entry]) -> None:
        self._taker = taker
        self._done = done
        self._replies = [b""] * len(entries)
        self._open = len(entries)
        self.entries = entries
        self.answered = False
        self.offered = True
        for i, entry in enumerate(entries):
            entry.verdict = partial(self._settle, i)

    def _settle(self, place: int, reply: bytes) -> None:
        if self.answered:
            return
        self._replies[place] = reply
        self._open -= 1
        if not self._open:
            self._answer()

    def _answer(self) -> None:
        self.answered = True
        self.entries = []  # they refer to this ticket: without the circle the collector has nothing to do
        guarded("answer", self._done, None if all(reply == OK for reply in self._replies) else self._replies)

    def expire(self) -> None:
        """The time is over: what is not sent is taken back, what is sent is in doubt."""
        not_sent = self._taker.why_not_sent()
        self.answered = True
        back = doubtful = 0
        for i, entry in enumerate(self.entries):
            if self._replies[i]:
                continue
            if (not self.offered or self._taker.drop(entry)) and not entry.doubtful:
                self._replies[i] = not_sent.line()
                back += 1
            else:
                self._replies[i] = JOB_IN_DOUBT.line()
                doubtful += 1
        all_back = back == len(self.entries)
        self.entries = []
        for reason, jobs in (("not_sent", back), ("in_doubt", doubtful)):
            if jobs:
                self._taker.refuse(reason, jobs)
        self._done(not_sent if all_back else self._replies)
