"""What a row is, and the seal that tells a damaged one: SQLite keeps no checksums of its pages.

A stored job is `id`, `mark` and `payload`. The mark is 20 bytes: CRC-32, origin, time of the append. The CRC covers
the id, the origin, the time and the payload; a row never changes once it is written, so it never has to be
computed again (the number of attempts, which does change, is a row of its own with a seal of its own).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import count
from zlib import crc32

import msgspec

_CRC = struct.Struct("<I")
_WHENCE = struct.Struct("<Qd")  # origin, unix seconds
MARK_BYTES = _CRC.size + _WHENCE.size
_PRIME = 4_294_967_291  # largest below 2**32: a flip of any one of an id's 64 bits changes the remainder
_NUMBERS = struct.Struct("<qqd")

LENGTH_BITS = 30  # of a cut: SQLite's own limit for a value is 1e9 bytes
LENGTH_MASK = (1 << LENGTH_BITS) - 1


class Row(msgspec.Struct, gc=False):
    """A stored job as it is read back.

    `origin` is the order domain that `append` was given, 0 for a job of an earlier run and for a dead letter that was
    put back; `attempts` counts what `note_attempts` recorded, `at` is the time of the append in unix seconds.
    """

    id: int
    origin: int
    attempts: int
    payload: bytes
    at: float = 0.0


class DeadLetter(msgspec.Struct):
    """An acknowledged job that upstream refused for good, under the id that it had as a job.

    `reason` is upstream's own text, `at` the time of the refusal in unix seconds.
    """

    id: int
    jid: str
    reason: str
    attempts: int
    payload: bytes
    at: float


def pack(
    first: int, payloads: Sequence[bytes], origins: Sequence[int], at: float, start: int
) -> tuple[list[bytes], list[int], int]:
    """Prepares jobs with the ids `first`, `first + 1`, … for one INSERT that cuts them out of one long value.

    Args:
        origins: one for each payload.
        start: offset (from 1, as SQL counts) at which the first mark will stand.

    Returns:
        the pieces of that value (mark, payload, mark, payload, …), one cut a job (offset of its mark, shifted by
        `LENGTH_BITS`, and length of its payload), and the offset behind the last one.
    """
    whence, tag, last = b"", 0, -1
    crc = _CRC.pack
    pieces: list[bytes] = []
    cuts: list[int] = []
    put, cut = pieces.append, cuts.append
    for number, payload, origin in zip(count(first), payloads, origins, strict=False):
        if origin != last:
            whence, last = _WHENCE.pack(origin, at), origin
            tag = crc32(whence)
        size = len(payload)
        put(crc(crc32(payload, tag + number % _PRIME)) + whence)
        put(payload)
        cut(start << LENGTH_BITS | size)
        start += MARK_BYTES + size
    return pieces, cuts, start


def mark(number: int, payload: bytes, origin: int, at: float) -> bytes:
    """The mark of a job appended at `at` (unix seconds)."""
    whence = _WHENCE.pack(origin, at)
    return _CRC.pack(crc32(payload, crc32(whence) + number % _PRIME)) + whence


def opened(number: int, mark: bytes, payload: bytes) -> tuple[int, float] | None:
    """Origin and time of a stored job, None when its seal doesn't fit."""
    if len(mark) != MARK_BYTES:
        return None
    whence = mark[_CRC.size :]
    if _CRC.unpack_from(mark)[0] != crc32(payload, (crc32(whence) + number % _PRIME)):
        return None
    origin, at = _WHENCE.unpack(whence)
    return origin, at


def appended_at(mark: object) -> float:
    """The time in a mark, unproven; 0 where it can't be one."""
    if not isinstance(mark, bytes) or len(mark) != MARK_BYTES:
        return 0.0
    at = float(_WHENCE.unpack_from(mark, _CRC.size)[1])
    return at if 0 < at < 1e11 else 0.0


def seal_attempts(number: int, attempts: int) -> int:
    """CRC-32 of a job's number of attempts."""
    return crc32(_NUMBERS.pack(number, attempts, 0.0))


def seal_letter(letter: DeadLetter) -> int:
    """CRC-32 of everything that a dead letter holds."""
    numbers = _NUMBERS.pack(letter.id, letter.attempts, letter.at)
    text = f"{letter.jid}\0{letter.reason}\0".encode("utf-8", "surrogatepass")
    return crc32(letter.payload, crc32(text, crc32(numbers)))


def seal_text(key: str, value: str) -> int:
    """CRC-32 of a named setting."""
    return crc32(f"{key}\0{value}".encode())
