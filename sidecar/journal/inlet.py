"""What the writer thread waits for: requests of the event loop, and sockets that were lent to it.

A socket that is watched here is read by the thread alone, with the lock held; who takes it back holds the lock too. So
it has one reader at any time, whatever the disk does.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.journal.requests import Request


class Source(Protocol):
    """Something with a descriptor that is lent to the thread."""

    def fileno(self) -> int:
        """The descriptor."""


class Inlet:
    """The thread's queue and its sockets.

    Attributes:
        read: called on the thread with the sources that are readable; what it leaves unread comes again.
    """

    def __init__(self) -> None:
        self.read: Callable[[Sequence[Source]], None] | None = None
        self._lock = threading.RLock()
        self._requests: deque[Request] = deque()
        self._sources: dict[int, Source] = {}
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._bell, False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._asleep = False

    @property
    def empty(self) -> bool:
        """Whether no request waits."""
        return not self._requests

    @property
    def sources(self) -> int:
        """Sockets that are lent now."""
        return len(self._sources)

    def put(self, request: Request) -> None:
        """Queue a request, from any thread."""
        self._requests.append(request)
        if self._asleep:
            self._asleep = False
            os.write(self._ring, b"\0")

    def watch(self, source: Source) -> None:
        """Lend a socket to the thread."""
        with self._lock:
            self._sources[source.fileno()] = source
            self._selector.register(source.fileno(), selectors.EVENT_READ)

    def unwatch(self, source: Source) -> bool:
        """Take a socket back, from any thread; False when it isn't lent."""
        with self._lock:
            if self._sources.get(source.fileno()) is not source:
                return False
            del self._sources[source.fileno()]
            self._selector.unregister(source.fileno())
            return True

    def unwatch_all(self) -> list[Source]:
        """Take all sockets back; which they were."""
        with self._lock:
            return [source for source in list(self._sources.values()) if self.unwatch(source)]

    def wait(self, timeout: float) -> list[Request]:
        """On the thread: what there is to do, after at most so many seconds."""
        self._asleep = True
        events = self._selector.select(0.0 if self._requests else timeout)
        self._asleep = False
        if events:
            self._look(events)
        requests = []
        for _ in range(len(self._requests)):
            requests.append(self._requests.popleft())
        return requests

    def _look(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        with self._lock:
            ready = []
            for key, _ in events:
                if key.fd == self._bell:
                    os.read(self._bell, 64)
                elif (source := self._sources.get(key.fd)) is not None:
                    ready.append(source)
            if ready and self.read is not None:
                self.read(ready)

    def close(self) -> None:
        """The thread has ended."""
        self._selector.close()
        os.close(self._bell)
        os.close(self._ring)
