"""Barriers: which acknowledged jobs must be upstream before a command goes there.

A client that pushes and then asks would have seen its jobs on a direct connection, so a command waits for those that
were acknowledged and are not upstream yet. Who waits makes them go ahead of all others.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from sidecar.forwarder import Forwarder
from sidecar.jobs import Origin


class Barrier(enum.Enum):
    """Whose jobs a command waits for."""

    NONE = "none"
    OWN = "own"
    """Those of this connection, or of its worker."""
    ALL = "all"


OF_VERB: Final = {b"FLUSH": Barrier.ALL, b"FETCH": Barrier.NONE, b"BEAT": Barrier.NONE, b"END": Barrier.NONE}
"""All other commands wait for their origin's jobs."""


class Barriers:
    """Where commands wait. One that waits for all is taken back by the function that it gave."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def wait(self, origin: Origin, verb: bytes, then: Callable[[], None]) -> None:
        """Call `then` once the barrier of this verb has passed, at once if there is nothing to wait for."""
        match OF_VERB.get(verb, Barrier.OWN):
            case Barrier.NONE:
                then()
            case Barrier.OWN:
                self.own(origin, then)
            case Barrier.ALL:
                self._forwarder.when_all_settled(then)

    def own(self, origin: Origin, then: Callable[[], None]) -> None:
        """Call `then` once the origin's jobs so far are settled."""
        epoch = origin.close_epoch()
        epoch.wait(then)
        if not epoch.passed:
            self._forwarder.promote(epoch)

    def stop_waiting(self, then: Callable[[], None]) -> None:
        """Take back what waits for all jobs; who waits for its own is called in vain."""
        self._forwarder.stop_waiting(then)
