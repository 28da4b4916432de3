"""One owner a directory: a `flock` on a file of its own that says who holds it.

The database file itself is never opened for this: closing any descriptor of it would drop SQLite's POSIX locks. The
kernel releases a `flock` with its process, however that ends, so a lock is never stale; what the file says survives,
and a text in an unheld file is how an unclean stop is known.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sidecar.errors import StartError

LOCK_NAME = "owner"
_PATIENCE = 0.5  # seconds; a command that asks who the owner is holds the lock for microseconds


class Owner(msgspec.Struct, frozen=True):
    """Who owns, or owned, a journal directory. `since` is RFC 3339, in UTC."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since}"


def _said(descriptor: int) -> tuple[Owner | None, bool]:
    """What the file says of its owner, and whether it says anything at all (a damaged text is a text)."""
    text = os.pread(descriptor, 4096, 0)
    if not text.strip():
        return None, False
    try:
        return msgspec.json.decode(text, type=Owner), True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, True


def owner_of(directory: Path) -> Owner | None:
    """Who holds the directory right now, None when nobody does. For commands beside a running sidecar.

    It never takes the lock for longer than the question, and only in the shared kind.
    """
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(descriptor)[0] or Owner(0, "unknown", "unknown")
    finally:
        os.close(descriptor)
    return None


class Lock:
    """The held lock of a directory.

    Attributes:
        unclean: the owner before us didn't close the journal.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the lock.

        Raises:
            StartError: another process holds it; says which.
            OSError: the directory can't be written.
        """
        self._descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not self._take():
            owner = _said(self._descriptor)[0]
            os.close(self._descriptor)
            raise StartError(
                f"journal {directory} is in use by {owner or 'another process'}; "
                "stop that one or use another SIDECAR_JOURNAL_DIR"
            )
        self.unclean = _said(self._descriptor)[1]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._write(msgspec.json.encode(Owner(os.getpid(), socket.gethostname(), now)))

    def _take(self) -> bool:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > until:
                    return False
                time.sleep(0.02)

    def _write(self, text: bytes) -> None:
        os.pwrite(self._descriptor, text, 0)  # never empty on the way: empty means a clean stop
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)

    def release(self, *, clean: bool) -> None:
        """Gives the directory up; `clean` says that the next owner needs no recovery.

        Raises:
            OSError: the mark couldn't be written. The lock is released all the same.
        """
        try:
            if clean:
                self._write(b"")
        finally:
            os.close(self._descriptor)
