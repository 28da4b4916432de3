"""A pipe for somebody's stderr whose reader can stop reading: Ctrl-S on a terminal, a log collector that is stuck."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

CAPACITY = 4096
"""Bytes that the pipe holds while nobody reads (Linux: the least there is; 64 KiB are its default)."""
END_PATIENCE = 10.0
"""Seconds until what an ended process has written must be in the file."""


class LogPipe:
    """Copies what is written to `writer` into a file.

    Args:
        path: the file; begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._reader, self.writer = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, CAPACITY)
        self._file = path.open("wb", buffering=0)
        self._reading = threading.Event()
        self._reading.set()
        self._thread = threading.Thread(target=self._copy, name="log pipe", daemon=True)
        self._thread.start()

    def handed_over(self) -> None:
        """The process has its end: ours is closed."""
        os.close(self.writer)

    def stall(self) -> None:
        """Read no more, after what is being read right now."""
        self._reading.clear()

    def go_on(self) -> None:
        """Read again."""
        self._reading.set()

    def finish(self) -> None:
        """The process has ended: all that it wrote is in the file when this returns."""
        self.go_on()
        self._thread.join(END_PATIENCE)
        assert not self._thread.is_alive(), "somebody else still holds this stderr"

    def _copy(self) -> None:
        with self._file:
            while data := os.read(self._reader, 1 << 16):
                self._file.write(data)
                self._reading.wait()
        os.close(self._reader)
