"""One owner a directory: a `flock` on the directory and on a file in it that says who holds it.

The directory's own lock is what counts: a file in it can be deleted and made anew by anybody, and two processes would
hold a lock on `owner` each. The file's lock is for versions that know no other, and for file systems that lock no
directories.

The database file itself is never opened for this: closing any descriptor of it would drop SQLite's POSIX locks. The
kernel releases a `flock` with its process, however that ends, so a lock is never stale; what the file says survives,
and an owner's name in an unheld file is how an unclean stop is known. A clean one leaves there how the database looked,
so that a copy that was put in its place is known, though not a volume that was set back as a whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sidecar.errors import StartError
from sidecar.journal.birth import birth_of
from sidecar.journal.schema import DB_NAME

LOCK_NAME = "owner"
_NO_SUCH_LOCK = frozenset({errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""Errors of file systems that lock no directories: NFS wants a descriptor that may write."""
_PATIENCE = 0.5  # seconds; a command that asks who the owner is holds the lock for microseconds


class Owner(msgspec.Struct, frozen=True):
    """Who owns, or owned, a journal directory. `since` is RFC 3339, in UTC."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} since {self.since}"


class Closed(msgspec.Struct, frozen=True):
    """The mark of a clean stop: when the database was made, its inode, its last change (ns), its size in bytes."""

    made: int
    inode: int
    changed: int
    size: int


def _mark(database: Path) -> Closed | None:
    try:
        found = os.stat(database)
    except FileNotFoundError:
        return None
    return Closed(birth_of(database), found.st_ino, found.st_mtime_ns, found.st_size)


def _closed(descriptor: int) -> Closed | None:
    """What the last clean stop noted; None where it noted nothing, or wasn't clean."""
    try:
        return msgspec.json.decode(os.pread(descriptor, 4096, 0), type=Closed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


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
    said, held = None, False
    for path in (directory / LOCK_NAME, directory):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if path != directory:
                said = _said(descriptor)[0]
            held = held or _locked_by_another(descriptor)
        finally:
            os.close(descriptor)
    return (said or Owner(0, "unknown", "unknown")) if held else None


def _locked_by_another(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _NO_SUCH_LOCK:
            raise
    return False


class Lock:
    """The held lock of a directory.

    Attributes:
        directory: its descriptor, which goes on naming it wherever it is moved.
        unclean: the owner before us didn't close the journal.
        replaced: it did, and the database is not the file that it closed: a copy, an older one perhaps.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the lock.

        Raises:
            StartError: another process holds it, and which one; or locks don't hold there.
            OSError: the directory can't be written.
        """
        self._path = directory / LOCK_NAME
        self.directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            os.close(self.directory)
            raise
        try:
            self._own(directory)
        except BaseException:
            self._close()
            raise

    def _own(self, directory: Path) -> None:
        owner, unclean = _said(self._descriptor)
        if not (_take(self._descriptor) and _take_directory(self.directory)):
            raise StartError(
                f"journal {directory} is in use by {owner or 'another process'}; "
                "stop that one or use another SIDECAR_JOURNAL_DIR"
            )
        second = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _locked_by_another(second):
                raise StartError(
                    f"locks don't hold in {directory}: two processes could own one journal; "
                    "it must be on a local disk (SIDECAR_JOURNAL_DIR)"
                )
        finally:
            os.close(second)
        closed = _closed(self._descriptor)
        self.unclean = unclean and closed is None
        self.replaced = closed is not None and closed != _mark(directory / DB_NAME)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._write(msgspec.json.encode(Owner(os.getpid(), socket.gethostname(), now)))

    def _write(self, text: bytes) -> None:
        os.pwrite(self._descriptor, text, 0)  # never empty on the way: empty means a clean stop
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)

    def _close(self) -> None:
        os.close(self._descriptor)
        os.close(self.directory)

    def release(self, *, clean: bool) -> None:
        """Gives the directory up; `clean` says that the next owner needs no recovery.

        Raises:
            OSError: the mark couldn't be written. The lock is released all the same.
        """
        try:
            if clean:
                closed = _mark(self._path.with_name(DB_NAME))
                self._write(b"" if closed is None else msgspec.json.encode(closed))
        finally:
            self._close()


def _take(descriptor: int) -> bool:
    """Waits for a moment for whoever asks who the owner is; False: it is owned."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)


def _take_directory(descriptor: int) -> bool:
    """As `_take`; file systems that lock no directories have the file's lock alone."""
    try:
        return _take(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_LOCK:
            raise
        return True
