"""Takes a command to upstream as the client sent it, and the reply back byte for byte, behind the barrier it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from sidecar.errors import Refusal
from sidecar.intake import Deadlines, Intake
from sidecar.jobs import Origin
from sidecar.upstream.side import Answer, Passed

LATE_IN_DOUBT = Refusal("in doubt: Faktory did not answer in time; the command may have been carried out").line()


class Way(Protocol):
    """A connection to upstream for commands: the producers' shared one, or a tunnel."""

    def send(self, line: bytes, answer: Answer) -> Passed:
        """Pass a line (without its end) on; `answer` gets the raw reply once."""


class PassedCommand:
    """One command from its arrival to its reply.

    Args:
        since: when it arrived (trio's clock).

    Attributes:
        too_late: what to do in place of a reply when the time is over and the command is on its way.
        handed_over: what to do when the way has the command, which from then on is what holds it.
    """

    __slots__ = (
        "_due",
        "_fill",
        "_intake",
        "_line",
        "_passed",
        "_way",
        "answered",
        "handed_over",
        "too_late",
    )

    def __init__(
        self,
        line: bytes,
        fill: Answer,
        way: Way,
        *,
        intake: Intake,
        deadlines: Deadlines,
        since: float,
    ) -> None:
        self._line = line
        self._fill = fill
        self.too_late: Callable[[], None] | None = None
        self.handed_over: Callable[[], None] | None = None
        self._way = way
        self._intake = intake
        self._passed: Passed | None = None
        self.answered = False
        self._due = since + deadlines.limit
        deadlines.add(self, since=since)

    def start(self, verb: bytes, origin: Origin) -> None:
        """Go as soon as the barrier of this verb has passed."""
        self._intake.barrier(origin, verb, self._go)

    def _go(self) -> None:
        if not self.answered and trio.current_time() < self._due:  # else it is about to expire
            line, self._line = self._line, b""  # who refers to this command need not hold it
            self._passed = self._way.send(line, self._answer)
            if self.handed_over is not None:
                self.handed_over()

    def _answer(self, reply: bytes) -> None:
        if not self.answered:
            self.answered = True
            self._fill(reply)

    def expire(self) -> None:
        """The time is over."""
        self.answered = True
        self._line = b""
        if self._passed is not None and self._passed.sent:
            self._intake.refuse("in_doubt")
            if self.too_late is not None:
                self.too_late()
                self._fill(b"")  # the connection has ended; who serves it need not wait for this reply
            else:
                self._fill(LATE_IN_DOUBT)
            return
        if self._passed is not None:
            self._passed.drop()
        self._intake.stop_waiting(self._go)
        self._intake.refuse("not_sent")
        self._fill(self._intake.why_not_sent().line())
