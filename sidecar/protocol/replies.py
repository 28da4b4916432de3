"""RESP replies: the few that Faktory's protocol uses, out of a byte stream and into one."""

from __future__ import annotations

import re
from typing import Final, NoReturn

OK: Final = b"+OK\r\n"
NIL: Final = b"$-1\r\n"

#: Longest reply in bytes, all of it. An error may quote a whole command line, and a fetched job is about as long as
#: its PUSH was.
MAX_REPLY: Final = 64 * 1024 * 1024

# "$" and a decimal length; 20 digits would not be a length that any machine can hold.
_BULK_HEADER = re.compile(rb"\$(0|[1-9][0-9]{0,18})\r\n")
_NUMBER = re.compile(rb":[+-]?[0-9]{1,19}\r\n")
_LONGEST_HEADER = 22
_LONGEST_QUOTE = 60
_UNKNOWN = -1


class ProtocolError(Exception):
    """The peer sent what the protocol has no meaning for; its connection can't be read any further."""


def bulk(body: bytes) -> bytes:
    """`body` as a bulk reply."""
    return b"$%d\r\n%b\r\n" % (len(body), body)


def error_text(reply: bytes) -> str | None:
    """What an error reply says, its code included (`ERR unknown command X`); None when it is no error."""
    if not reply.startswith(b"-"):
        return None
    return reply[1:].removesuffix(b"\r\n").decode(errors="replace")


def bulk_body(reply: bytes) -> bytes | None:
    """The body of a complete bulk reply, None for nil.

    Raises:
        ProtocolError: `reply` is of another kind, or not one whole reply.
    """
    if reply == NIL:
        return None
    header = _BULK_HEADER.match(reply)
    if header is None or len(reply) != header.end() + int(header[1]) + 2 or not reply.endswith(b"\r\n"):
        raise ProtocolError(f"expected a bulk reply, got {_quote(reply)}")
    return reply[header.end() : -2]


class ReplyReader:
    """Cuts a byte stream into replies, each returned raw with its CRLF, in time linear in its length.

    Line replies end at CRLF, not at a bare LF: some error texts quote a client's string as it is.

    Args:
        limit: bytes of one reply, header and terminators included.
    """

    def __init__(self, limit: int = MAX_REPLY) -> None:
        self._limit = limit
        self._partial = bytearray()
        self._needed = 0  # bytes of the reply in `_partial`, 0 while its length is not known
        self._broken: str | None = None

    @property
    def pending(self) -> int:
        """Bytes of the reply whose end has not arrived."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived, return the replies that are complete now.

        Raises:
            ProtocolError: not a reply of this protocol, or one over the limit. So does every later call.
        """
        if self._broken is not None:
            raise ProtocolError(self._broken)
        if self._partial:
            before = len(self._partial)
            self._partial += data
            # Look again only when a whole reply or the end of a header is there: no byte is scanned often.
            if len(self._partial) < self._needed or (not self._needed and self._partial.find(b"\r\n", before - 1) < 0):
                self._check_partial()
                return []
            data = bytes(self._partial)
            self._partial.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[bytes]:
        replies = []
        position = 0
        while position < len(data):
            end = self._end(data, position)
            if end - position > self._limit:
                self._fail_long()
            if end == _UNKNOWN or end > len(data):
                self._needed = max(end - position, 0)
                self._partial += data[position:]
                self._check_partial()
                break
            replies.append(data[position:end])
            position = end
        return replies

    def _end(self, data: bytes, start: int) -> int:
        """Where the reply at `start` ends, also when that is behind the data; `_UNKNOWN` without a whole header."""
        kind = data[start]
        if kind not in b"+-:$":
            self._fail(data[start:])
        header_end = data.find(b"\r\n", start) + 2
        if header_end < 2:
            return _UNKNOWN
        if kind in b"+-" or data.startswith(NIL, start):
            return header_end
        if kind in b":":
            return header_end if _NUMBER.match(data, start) else self._fail(data[start:])
        header = _BULK_HEADER.match(data, start)
        if header is None:
            self._fail(data[start:])
        end = header_end + int(header[1]) + 2
        if end <= len(data) and not data.startswith(b"\r\n", end - 2):
            self._fail(data[end - 2 :])
        return end

    def _check_partial(self) -> None:
        """Raise when what is there can't become a reply any more."""
        if len(self._partial) > self._limit:
            self._fail_long()
        if not self._needed and self._partial[0] in b":$" and len(self._partial) >= _LONGEST_HEADER:
            self._fail(bytes(self._partial))

    def _fail_long(self) -> NoReturn:
        self._broken = f"a reply is longer than {self._limit:,} bytes"
        raise ProtocolError(self._broken)

    def _fail(self, found: bytes) -> NoReturn:
        self._broken = f"not a reply: {_quote(found)}"
        raise ProtocolError(self._broken)


def _quote(found: bytes) -> str:
    """The beginning of what was found, fit for a log line."""
    return repr(found[:_LONGEST_QUOTE])[1:] + ("..." if len(found) > _LONGEST_QUOTE else "")
