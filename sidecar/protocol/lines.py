"""Command lines out of a byte stream."""

from __future__ import annotations

from typing import Final

#: Longest command line in bytes, terminator included. Faktory itself has no bound; a job of this size is a
#: mistake, and without a bound one producer could fill the memory.
MAX_LINE: Final = 32 * 1024 * 1024


class LineTooLong(Exception):
    """A line is longer than the reader's limit; the stream can't be read any further.

    Args:
        limit: bytes a line may have, terminator included.
        complete: the lines that the same piece of data completed before the long one, not returned otherwise.
    """

    def __init__(self, limit: int, complete: list[bytes]) -> None:
        super().__init__(f"a command line is longer than {limit:,} bytes")
        self.limit = limit
        self.complete = complete


class LineReader:
    """Cuts a byte stream into lines, in time linear in its length however it arrives.

    As Faktory does, a line ends at LF and one CR before it belongs to the terminator.

    Args:
        limit: bytes of a line, terminator included.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._broken = False

    @property
    def pending(self) -> int:
        """Bytes of the line whose end has not arrived."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived, return the lines that are complete now, without their terminators.

        Raises:
            LineTooLong: the limit is passed, also by a line whose end has not arrived. So does every later call.
        """
        if self._broken:
            raise LineTooLong(self._limit, [])
        fits = len(self._partial) + len(data) < self._limit
        lines = data.split(b"\n")
        rest = lines.pop()
        first: list[bytes] = []
        if lines and self._partial:
            self._partial += lines[0]
            if fits and self._partial.endswith(b"\r"):
                self._partial.pop()  # a copy less than below
                first = [bytes(self._partial)]
            else:
                lines[0] = bytes(self._partial)
            self._partial.clear()
        self._partial += rest
        if not fits:
            self._check(lines)
        if first:
            return first + [line.removesuffix(b"\r") for line in lines[1:]]
        return [line.removesuffix(b"\r") for line in lines]

    def _check(self, lines: list[bytes]) -> None:
        """Raise where one of the lines, or the unterminated rest, can't stay within the limit."""
        for index, line in enumerate([*lines, self._partial]):
            if len(line) + 1 > self._limit:
                self._broken = True
                self._partial.clear()
                raise LineTooLong(self._limit, [line.removesuffix(b"\r") for line in lines[:index]])
