"""A job on its way upstream, whose it is, and when all jobs of somebody are settled: what barriers stand on.

An `Entry` is a job that was taken and is not settled; it says itself where it is. An `Origin` is an order domain: one
producer connection, one worker (`wid`), one HTTP request. Its jobs belong to its present `Epoch`. A barrier closes that
epoch: later jobs go to the next one, and the barrier passes when the closed epoch and all before it have no unsettled
job left. So a job costs one addition and one subtraction, however many wait.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from sidecar.supervision import guarded

ENTRY_OVERHEAD = 512
"""Bytes of memory that a waiting job costs beside its JSON (measured: 410 to 520 with CPython 3.11)."""


class Place(enum.IntEnum):
    """Where an entry is. A lane skips entries that say they are elsewhere: moving and dropping one costs no search."""

    PARKED = -1
    """Not in a lane yet."""
    WAITING = 0
    URGENT = 1
    AGAIN = 2
    PIECES = 3
    SENT = 4
    DROPPED = 5
    """Its producer was told that it was not sent."""
    OVER = 6
    """Settled."""


class Trouble(msgspec.Struct, frozen=True):
    """What is held against a job that wasn't simply accepted.

    Attributes:
        apart: it waits apart, and nobody waits for it.
        tries: refusals that count towards being refused for good; `counted_at` the time of the latest (seconds of the
            caller's clock), `delivered` the jobs that upstream had accepted by then.
        setbacks: passing refusals while others were accepted; `lone` such with an unknown text while none was.
        kills: links lost with it at the head; `suspected_at` the jobs that upstream had accepted at the first.
        as_push: a `PUSHB` of it alone was refused: it travels as a `PUSH`.
    """

    apart: bool = False
    tries: int = 0
    counted_at: float = 0.0
    delivered: int = 0
    setbacks: int = 0
    lone: int = 0
    kills: int = 0
    suspected_at: int = 0
    as_push: bool = False


class Entry(msgspec.Struct, eq=False):
    """A job on its way upstream.

    Attributes:
        id: rises in the order of acknowledgement; the journal's row id in `disk` mode.
        payload: the job's JSON as it goes upstream.
        at: when it was offered (seconds of the caller's clock), for its linger; 0 for one that doesn't linger.
        verdict: told upstream's reply (raw) where somebody waits for it, None for an acknowledged job.
        stored: it is in the journal, and leaves it when it is settled.
        single: travels as a `PUSH` of its own.
        once: never sent a second time by us.
        doubtful: it was sent, and the link was lost before the reply: nobody may say any more that it was not sent.
        trouble: None for nearly all of them.
    """

    id: int
    payload: bytes
    jid: str
    epoch: Epoch
    at: float = 0.0
    verdict: Callable[[bytes], None] | None = None
    stored: bool = False
    single: bool = False
    once: bool = False
    doubtful: bool = False
    trouble: Trouble | None = None
    place: int = Place.PARKED


class Epoch:
    """The jobs of one origin between two barriers.

    Attributes:
        number: what the journal's rows carry, so that a job read back finds its epoch.
        unsettled: jobs taken and not settled.
        unsent: those of them that wait in memory for their first send, in order.
        cold: ids of those whose payload is only in the journal, rising; `cold_from` of them are read back already.
        hurried: somebody waits for its jobs, also for those that are still on their way to the journal.
    """

    __slots__ = (
        "__weakref__",
        "_waiting",
        "cold",
        "cold_from",
        "following",
        "hurried",
        "number",
        "previous",
        "unsent",
        "unsettled",
    )

    def __init__(self, number: int, previous: Epoch | None = None) -> None:
        self.number = number
        self.unsettled = 0
        self.unsent: deque[Entry] = deque()
        self.cold: array[int] | None = None
        self.cold_from = 0
        self.hurried = False
        self.previous = previous
        self.following: Epoch | None = None
        self._waiting: list[Callable[[], None]] = []
        if previous is not None:
            previous.following = self

    @property
    def passed(self) -> bool:
        """True when neither this epoch nor one before it has an unsettled job."""
        return self.unsettled == 0 and self.previous is None

    def wait(self, then: Callable[[], None]) -> None:
        """Call `then` once when this epoch has passed, at once if it has."""
        if self.passed:
            then()
        else:
            self._waiting.append(then)

    def settle(self, jobs: int = 1) -> None:
        """`jobs` of this epoch are settled."""
        self.unsettled -= jobs
        if self.unsettled == 0 and self.previous is None:
            self._pass()

    def _pass(self) -> None:
        epoch: Epoch | None = self
        while epoch is not None and epoch.passed:
            waiting, epoch._waiting = epoch._waiting, []
            for then in waiting:
                guarded("barrier", then)
            following = epoch.following
            if following is not None:
                following.previous = None
                epoch.following = None
            epoch = following

    def add_cold(self, job_id: int) -> None:
        """A job of this epoch is now only in the journal."""
        if self.cold is None:
            self.cold = array("q")
        self.cold.append(job_id)

    def read_back_to(self, job_id: int) -> Sequence[int]:
        """The ids up to this one that were only in the journal: the backlog's cursor has passed them."""
        if self.cold is None:
            return ()
        end = bisect_right(self.cold, job_id, self.cold_from)
        passed = self.cold[self.cold_from : end]
        self.cold_from = end
        if end == len(self.cold):
            self.cold, self.cold_from = None, 0
        return passed

    def take_cold(self) -> array[int]:
        """All ids of this epoch that are only in the journal; they are forgotten here."""
        if self.cold is None:
            return array("q")
        ids = self.cold[self.cold_from :]
        self.cold, self.cold_from = None, 0
        return ids


class Origin:
    """One order domain.

    Args:
        numbers: gives each epoch its number, unique in this run.
    """

    __slots__ = ("__weakref__", "_numbers", "epoch")

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self.epoch = Epoch(next(numbers))

    def close_epoch(self) -> Epoch:
        """End the present epoch and give it back; later jobs belong to a new one.

        An empty epoch need not be closed: the barrier waits for what came before it.
        """
        epoch = self.epoch
        if epoch.unsettled == 0:
            return epoch if epoch.previous is None else epoch.previous
        self.epoch = Epoch(next(self._numbers), previous=epoch)
        return epoch
