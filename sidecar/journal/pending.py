"""What waits for the writer thread, and how the next transaction is made of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

from sidecar.errors import Refusal
from sidecar.journal.requests import Append, Ask, Bury, Note, Request, Requeue, Settle, Stop
from sidecar.journal.space import ROW_OVERHEAD
from sidecar.journal.store import Addition, Change

GROUP_BYTES = 4 * 1024 * 1024
"""Bytes of one group of appends, and of one INSERT; an append that is larger is a transaction of several INSERTs."""
SETTLE_DELAY = 0.1
"""Seconds that a deletion waits for company."""
SETTLE_JOBS = 1_000
"""Deletions that are enough company."""
SETTLE_MOST = 10_000
"""Deletions in one transaction, about."""


class Group(msgspec.Struct):
    """One transaction, and what it is made of.

    Attributes:
        appends: what is stored, each of them whole.
        answers: what is to be called at once when it is on the disk.
    """

    change: Change
    appends: list[Append] = []
    answers: list[Callable[[], None]] = []
    settles: list[Settle] = []
    others: list[Bury | Note] = []
    jobs: int = 0
    bytes: int = 0


class Pending:
    """Requests in their order, by kind.

    Attributes:
        settling: jobs that wait for their deletion.
        doubted: ids of appends that were refused after a commit with them had failed.
    """

    def __init__(self) -> None:
        self.appends: deque[Append] = deque()
        self.settles: deque[Settle] = deque()
        self.others: deque[Bury | Note] = deque()
        self.requeues: deque[Requeue] = deque()
        self.asks: deque[Ask] = deque()
        self.settling = 0
        self._settle_most = SETTLE_MOST
        self.doubted: list[range] = []
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
        while self.settles and len(group.change.gone) < self._settle_most:
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
            if group.appends and (group.bytes + append.size > GROUP_BYTES or append.first != following):
                return
            self.appends.popleft()
            if append.size <= GROUP_BYTES:
                group.change.additions.append(append)
            else:
                group.change.ahead = _parts(append)
            group.appends.append(append)
            jobs = len(append.payloads)
            group.jobs += jobs
            group.bytes += append.size
            if append.at_once is not None:
                group.answers.append(append.at_once)
            following = append.first + jobs

    def undo(self, group: Group, *, doubtful: bool) -> None:
        """The transaction failed: everything waits again; `doubtful`: it may come back after a crash."""
        for append in reversed(group.appends):
            append.doubtful |= doubtful
            self.appends.appendleft(append)
        self.settles.extendleft(reversed(group.settles))
        self._settle_most = max(1, self._settle_most // 4)  # there may be room for less
        self.settling += sum(len(settle.ids) for settle in group.settles)
        self.others.extendleft(reversed(group.others))

    def finish(self, group: Group) -> list[Callable[[], None]]:
        """The transaction is on the disk: the calls that tell so."""
        self._settle_most = min(SETTLE_MOST, 2 * self._settle_most)
        calls: list[Callable[[], None]] = [partial(append.done, None) for append in group.appends]
        calls += [settle.done for settle in group.settles if settle.done is not None]
        calls += [other.done for other in group.others if isinstance(other, Bury) and other.done is not None]
        return calls

    def refuse(self, reason: str, due_by: float) -> list[Callable[[], None]]:
        """Refuses the appends that are due by then; the calls that tell so."""
        calls: list[Callable[[], None]] = []
        while self.appends and self.appends[0].due <= due_by:
            append = self.appends.popleft()
            calls.append(self._refused(append, reason))
        return calls

    def refuse_unfit(self, why: Callable[[int], str | None]) -> list[Callable[[], None]]:
        """Refuses the oldest appends for which there can never be room; the calls that tell so.

        Args:
            why: why so many bytes can never be stored; None: they can.
        """
        calls: list[Callable[[], None]] = []
        while self.appends and self.appends[0].size > GROUP_BYTES and (reason := why(self.appends[0].size)) is not None:
            calls.append(self._refused(self.appends.popleft(), reason))
        return calls

    def _refused(self, append: Append, reason: str) -> Callable[[], None]:
        if append.doubtful:
            self.doubted.append(range(append.first, append.first + len(append.payloads)))
        start = "in doubt: it may be enqueued" if append.doubtful else "not sent"
        return partial(append.done, Refusal(f"{start}: {reason}", retry=True))

    def resolve(self, stored: Callable[[range], list[int]]) -> tuple[list[Callable[[], None]], list[int]]:
        """After a mend: what became of the jobs whose commit failed.

        Args:
            stored: which of these ids are in the journal.

        Returns:
            the calls that tell of those that are stored and waited for; ids that are stored although they were refused.
        """
        calls: list[Callable[[], None]] = []
        waiting, self.appends = self.appends, deque()
        for append in waiting:
            if append.doubtful and stored(range(append.first, append.first + len(append.payloads))):
                calls += [append.at_once] if append.at_once is not None else []
                calls.append(partial(append.done, None))
            else:
                append.doubtful = False
                self.appends.append(append)
        found = [number for ids in self.doubted for number in stored(ids)]
        self.doubted = []
        return calls, found


def _parts(append: Append) -> list[Addition]:
    """A very large append in pieces that one INSERT takes, of a job at least."""
    parts: list[Addition] = []
    start, size = 0, 0
    for place, payload in enumerate(append.payloads):
        row = len(payload) + ROW_OVERHEAD
        if size + row > GROUP_BYTES and place > start:
            parts.append(_part(append, start, place))
            start, size = place, 0
        size += row
    return [*parts, _part(append, start, len(append.payloads))]


def _part(append: Append, start: int, end: int) -> Addition:
    return Addition(append.first + start, append.payloads[start:end], append.origins[start:end], append.at)
