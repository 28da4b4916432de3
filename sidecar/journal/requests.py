"""What the event loop asks of the writer thread, and what the thread tells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from outcome import Outcome

from sidecar.errors import Refusal
from sidecar.journal.seal import DeadLetter
from sidecar.journal.store import Addition

if TYPE_CHECKING:
    from sidecar.journal.reading import Counts
    from sidecar.journal.recovery import Recovery
    from sidecar.journal.store import Store

Committed = Callable[[Refusal | None], None]


class Append(Addition):
    """Jobs to be stored, all of them or none.

    Attributes:
        due: monotonic second at which they are refused if they can't be stored by then.
        size: bytes that they take in the journal, with `ROW_OVERHEAD` for each.
    """

    done: Committed
    due: float
    size: int
    at_once: Callable[[], None] | None = None
    """Called on the thread as soon as all of them are on the disk, ahead of `done`."""
    doubtful: bool = False
    """A commit with some of them failed: they may come back after a crash."""


class Settle(msgspec.Struct):
    """Jobs that upstream accepted."""

    ids: Sequence[int]
    done: Callable[[], None] | None
    since: float


class Bury(msgspec.Struct):
    """Jobs that become dead letters."""

    letters: Sequence[DeadLetter]
    done: Callable[[], None] | None


class Note(msgspec.Struct):
    """Jobs that were tried `attempts` times."""

    ids: Sequence[int]
    attempts: int


class Requeue(msgspec.Struct):
    """Flagged dead letters that become jobs with ids from `first` on."""

    flagged: Sequence[int]
    first: int
    done: Callable[[range], None]


class Ask(msgspec.Struct):
    """A question to the database; `answer` is called on the event loop, with what it raised where it failed."""

    question: Callable[[Store], object]
    answer: Callable[[Outcome[object]], None]


class Stop(msgspec.Struct):
    """Commit all that is queued and close."""


Request = Append | Settle | Bury | Note | Requeue | Ask | Stop


class News(msgspec.Struct):
    """What the thread tells the event loop, after each commit and about once a second."""

    counts: Counts
    calls: list[Callable[[], None]]
    size: int
    oldest: float | None
    missing: int = 0
    recovery: Recovery | None = None
    jobs: int = 0
    seconds: float = 0.0
