"""What waits for the writer thread, and how the next transaction is made of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import accumulate

import msgspec

from sidecar.errors import Refusal
from sidecar.journal.requests import Append, Ask, Bury, Note, Request, Requeue, Settle, Stop
from sidecar.journal.store import Addition, Change

GROUP_BYTES = 4 * 1024 * 1024
"""Payload of one transaction; an append that is larger is stored in several."""
SETTLE_DELAY = 0.1
"""Seconds that a deletion waits for company."""
SETTLE_JOBS = 1_000
"""Deletions that are enough company."""
SETTLE_MOST = 10_000
"""Deletions in one transaction, about."""


class Group(msgspec.Struct):
    """One transaction, and what it is made of.

    Attributes:
        taken: how many jobs of each append are in it.
        answers: what is to be called at once when it is on the disk.
    """

    change: Change
    taken: list[tuple[Append, int]] = []
    answers: list[Callable[[], None]] = []
    settles: list[Settle] = []
    others: list[Bury | Note] = []
    jobs: int = 0
    bytes: int = 0


class Pending:
    """Requests in their order, by kind.

    Attributes:
        settling: jobs that wait for their deletion.
    """

    def __init__(self) -> None:
        self.appends: deque[Append] = deque()
        self.settles: deque[Settle] = deque()
        self.others: deque[Bury | Note] = deque()
        self.requeues: deque[Requeue] = deque()
        self.asks: deque[Ask] = deque()
        self.settling = 0
        self.stop = False

    def add(self, request: Request) -> None:
        """Takes a request in."""
        match request:
            case Append():
                self.appends.append(request)
            case Settle():
                self.settles.append(request)
                self.settling += len(request.ids)
            case Bury() | Note():
                self.others.append(request)
            case Requeue():
                self.requeues.append(request)
            case Ask():
                self.asks.append(request)
            case Stop():
                self.stop = True

    @property
    def unwritten(self) -> bool:
        """Whether something waits that changes the journal."""
        return bool(self.appends or self.settles or self.others)

    def settle_due(self) -> float | None:
        """Monotonic second at which the oldest deletion has waited long enough; None: none waits."""
        return self.settles[0].since + SETTLE_DELAY if self.settles else None

    def must_write(self, now: float) -> bool:
        """Whether there is something other than an append that shouldn't wait."""
        if self.others:
            return True
        due = self.settle_due()
        return due is not None and (now >= due or self.settling >= SETTLE_JOBS or self.stop)

    def take(self, has_room: Callable[[int], bool]) -> Group:
        """The next transaction.

        Args:
            has_room: whether the oldest append may be stored beside so many bytes.
        """
        group = Group(Change())
        self._take_appends(group, has_room)
        while self.settles and len(group.change.gone) < SETTLE_MOST:
            settle = self.settles.popleft()
            group.settles.append(settle)
            group.change.gone += settle.ids
            self.settling -= len(settle.ids)
        while self.others:
            other = self.others.popleft()
            group.others.append(other)
            if isinstance(other, Bury):
                group.change.letters += other.letters
            else:
                group.change.attempts.update(dict.fromkeys(other.ids, other.attempts))
        return group

    def _take_appends(self, group: Group, has_room: Callable[[int], bool]) -> None:
        following: int | None = None
        while self.appends and has_room(group.bytes):
            append = self.appends[0]
            if group.taken and (group.bytes + append.size > GROUP_BYTES or append.first != following):
                return
            self.appends.popleft()
            addition = append if append.size <= GROUP_BYTES else _start_of(append)
            jobs = len(addition.payloads)
            group.taken.append((append, jobs))
            group.change.additions.append(addition)
            group.jobs += jobs
            if jobs < len(append.payloads):
                group.bytes += sum(map(len, addition.payloads))
                return
            group.bytes += append.size
            if append.at_once is not None:
                group.answers.append(append.at_once)
            following = append.first + jobs

    def undo(self, group: Group, *, doubtful: bool) -> None:
        """The transaction failed: everything waits again; `doubtful`: it may come back after a crash."""
        for append, _ in reversed(group.taken):
            append.doubtful |= doubtful
            self.appends.appendleft(append)
        self.settles.extendleft(reversed(group.settles))
        self.settling += sum(len(settle.ids) for settle in group.settles)
        self.others.extendleft(reversed(group.others))

    def finish(self, group: Group) -> list[Callable[[], None]]:
        """The transaction is on the disk: the calls that tell so; what is left of a large append waits again."""
        calls: list[Callable[[], None]] = []
        for append, stored in group.taken:
            if stored == len(append.payloads):
                calls.append(partial(append.done, None))
                continue
            append.first, append.doubtful = append.first + stored, True
            append.payloads, append.origins = append.payloads[stored:], append.origins[stored:]
            append.size = sum(map(len, append.payloads))
            self.appends.appendleft(append)
        calls += [settle.done for settle in group.settles if settle.done is not None]
        calls += [other.done for other in group.others if isinstance(other, Bury) and other.done is not None]
        return calls

    def refuse(self, reason: str, due_by: float) -> list[Callable[[], None]]:
        """Refuses the appends that are due by then; the calls that tell so."""
        calls: list[Callable[[], None]] = []
        while self.appends and self.appends[0].due <= due_by:
            append = self.appends.popleft()
            start = "in doubt: it may be enqueued" if append.doubtful else "not sent"
            calls.append(partial(append.done, Refusal(f"{start}: {reason}", retry=True)))
        return calls


def _start_of(append: Append) -> Addition:
    """As many of its first jobs as one transaction takes, one at least."""
    sizes = accumulate(map(len, append.payloads))
    jobs = max(1, sum(1 for size in sizes if size <= GROUP_BYTES))
    return Addition(append.first, append.payloads[:jobs], append.origins[:jobs], append.at)
