"""What is answered, and who knows: what turns and tickets have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sidecar.errors import Refusal
from sidecar.jobs import Entry

Turn = TypeVar("Turn", contravariant=True)

Verdicts = list[bytes] | Refusal | None
"""What became of some jobs: None, all were accepted; a refusal, none was taken; else the raw reply of each."""

Done = Callable[[Verdicts], None]


class Taker(Protocol[Turn]):
    """Whose jobs they are until somebody else has them, the disk or upstream: the door."""

    def stored(self, turn: Turn, refusal: Refusal | None) -> None:
        """The journal has a turn's jobs on disk, or hasn't."""

    def heard_of(self, turn: Turn) -> None:
        """The journal's thread has taken a turn of its own."""

    def watch(self, turn: Turn, *, since: float | None) -> None:
        """Answer a turn's producers when the disk takes too long."""

    def drop(self, entry: Entry) -> bool:
        """Take a job back; False when it is on its way."""

    def why_not_sent(self) -> Refusal:
        """What a producer is told whose job could not be sent in time."""

    def refuse(self, reason: str, jobs: int = 1) -> None:
        """Count a refusal of ours."""
