"""The barrier for everything: a `FLUSH` goes when all jobs that were taken before it are settled.

Jobs taken meanwhile are parked, so that a busy sidecar comes to that point at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.jobs import Entry, Place
from sidecar.supervision import guarded

Admit = Callable[[Sequence[Entry], bool], None]


class FlushGate:
    """Holds jobs back while somebody waits for those before them.

    Args:
        admit: takes the parked jobs, with whether they linger, when nobody waits any more.
    """

    def __init__(self, admit: Admit) -> None:
        self._admit = admit
        self._waiting: list[Callable[[], None]] = []
        self._later: list[Callable[[], None]] = []  # who waits for parked jobs too
        self._parked: list[tuple[Sequence[Entry], bool]] = []
        self._jobs = 0  # parked and not dropped

    @property
    def closed(self) -> bool:
        """True while jobs are to be parked."""
        return bool(self._waiting)

    def park(self, entries: Sequence[Entry], *, linger: bool) -> None:
        """Hold these back."""
        self._parked.append((entries, linger))
        self._jobs += len(entries)

    def left(self) -> list[Entry]:
        """All that are held back."""
        return [entry for entries, _ in self._parked for entry in entries if entry.place != Place.DROPPED]

    def dropped(self) -> None:
        """A parked job is dropped."""
        self._jobs -= 1

    def wait(self, then: Callable[[], None]) -> None:
        """Call `then` when all jobs taken so far are settled, also those that are parked for another one's sake."""
        (self._later if self._parked else self._waiting).append(then)

    def stop_waiting(self, then: Callable[[], None]) -> None:
        """Take a `wait` back."""
        if then in self._later:
            self._later.remove(then)
        elif then in self._waiting:
            self._waiting.remove(then)
            self._open()

    def settled(self, unsettled: int) -> None:
        """So many jobs are unsettled now, the parked ones included."""
        while self._waiting and unsettled <= self._jobs:
            waiting, self._waiting = self._waiting, []
            for then in waiting:
                guarded("barrier", then)
            self._open()

    def _open(self) -> None:
        if self._waiting:
            return
        parked, self._parked = self._parked, []
        self._jobs = 0
        for entries, linger in parked:
            rest = [entry for entry in entries if entry.place != Place.DROPPED]
            if rest:
                self._admit(rest, linger)
        self._waiting, self._later = self._later, []
