"""Where this process's words go: lines for stderr, written by a thread of their own.

Whoever reads a log can stop reading it (Ctrl-S, a pager, a collector that hangs), and then a write blocks for as long.
So nobody who works writes: a line goes into a queue with a bound, and what finds no room there is dropped and counted.
The descriptor stays as it was given to us. It is shared with other processes, for all of whom `O_NONBLOCK` would hold.
"""

from __future__ import annotations

import io
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, Final, TextIO, cast

QUEUE_BYTES: Final = 1 << 20
"""Bytes of lines that wait: at the rate to which floods are held that is half an hour, in a burst some 5,000 lines."""
QUEUE_LINES: Final = 10_000
FLUSH_WITHIN: Final = 2.0
"""Seconds that the end of the process waits for what is still to be written."""
THREAD_AGAIN: Final = 1.0
"""Seconds between two attempts to start the thread where the system lets none be started."""
AT_ONCE: Final = 512
"""Bytes that a pipe takes without blocking when it says that it takes any (POSIX's least PIPE_BUF)."""


class Outlet:
    """Lines on their way to a descriptor.

    Args:
        descriptor: an open file, which others may share.

    Attributes:
        lost: lines that were never written, since the start: dropped, or refused by the descriptor.
        gap: makes the line that tells of so many dropped ones.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost = 0
        self.gap: Callable[[int], bytes] = _gap
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a finalizer may log in the middle of a `put`
        self._lines = self._size = 0  # that wait
        self._untold = 0  # dropped lines of which no line has told
        self._thread: threading.Thread | None = None
        self._thread_at = 0.0

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at it."""
        return os.isatty(self.descriptor)

    def put(self, line: bytes) -> None:
        """Write this, its line end included, soon; never blocks and never raises. From any thread."""
        with self._lock:
            if self._untold and self._has_room(len(line) + AT_ONCE):
                self._tell_of_gap()
            if self._has_room(len(line)):
                self._add(line)
            else:
                self.lost += 1
                self._untold += 1
            self._start()

    def flush(self, within: float = FLUSH_WITHIN) -> bool:
        """Wait until all that was put is written, for so many seconds at most; whether it is."""
        written = threading.Event()
        with self._lock:
            if self._untold:
                self._tell_of_gap()  # behind the event it might come too late
            self._queue.put(written)
        if self._start(at_once=True):
            return written.wait(within)
        self._write_here()
        return written.is_set()

    def _has_room(self, size: int) -> bool:
        return self._lines < QUEUE_LINES and self._size + size <= QUEUE_BYTES

    def _add(self, line: bytes) -> None:
        self._lines += 1
        self._size += len(line)
        self._queue.put(line)

    def _tell_of_gap(self) -> None:
        untold, self._untold = self._untold, 0
        self._add(self.gap(untold))

    # the thread

    def _start(self, *, at_once: bool = False) -> bool:
        """Whether there is a thread that writes."""
        if self._thread is None and (at_once or time.monotonic() >= self._thread_at):
            self._thread_at = time.monotonic() + THREAD_AGAIN
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # no thread can be started: the lines wait
                return False
            self._thread = thread
        return self._thread is not None

    def _run(self) -> None:
        while True:
            self._next(self._queue.get())

    def _next(self, line: bytes | threading.Event) -> None:
        if isinstance(line, threading.Event):
            line.set()
            return
        refused = not self._write(line)
        with self._lock:
            self.lost += refused
            self._lines -= 1
            self._size -= len(line)
            if self._untold and not self._lines:
                self._tell_of_gap()

    def _write(self, line: bytes) -> bool:
        """Write all of a line, however long that takes; False when it can't be: nobody is there to read it."""
        rest = memoryview(line)
        try:
            while rest:
                try:
                    rest = rest[os.write(self.descriptor, rest) :]
                except BlockingIOError:  # somebody who shares it wants it so
                    self._takes(None)
        except OSError:
            return False
        return True

    def _takes(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        return bool(poll.poll(timeout))

    def _write_here(self) -> None:
        """At the end, where no thread could be started: as much as is taken without blocking."""
        while not self._queue.empty():
            line = self._queue.get()
            if isinstance(line, bytes) and (len(line) > AT_ONCE or not self._takes(0)):
                self.lost += 1
                continue
            self._next(line)


def _gap(lines: int) -> bytes:
    return b"%d lines were dropped: nobody read them\n" % lines


class _Bytes(io.RawIOBase):
    """An outlet as what a text stream writes to."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._outlet.descriptor

    def isatty(self) -> bool:
        return self._outlet.is_terminal

    def write(self, data: bytes) -> int:  # type: ignore[override]  # any buffer, of which TextIOWrapper gives bytes
        self._outlet.put(bytes(data))
        return len(data)


def text_stream(outlet: Outlet) -> TextIO:
    """A stream of text, UTF-8 whatever the locale says, whose lines leave by an outlet."""
    raw = cast("BinaryIO", _Bytes(outlet))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


STDERR: Final = Outlet(2)
"""The process's own."""


def take_over() -> None:
    """At the very start of the process: make its three standard streams safe to use.

    A stream that is closed becomes the null device. Else the next socket or file would get its number, and whatever is
    written to it. All that is written to stderr, by whomever, leaves by the outlet.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, for `run`'s command too
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = text_stream(STDERR)
