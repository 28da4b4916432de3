"""SQLite's write-ahead log, read without SQLite (format: https://sqlite.org/fileformat2.html#the_write_ahead_log).

A frame's checksum goes on from that of the frame before it. SQLite stops at the first frame that doesn't fit and
forgets the rest, which is right for a torn write at the end and wrong for a flipped bit in the middle. But each frame
also stores its checksum, so a frame behind a broken one can still be proven: with the broken one's stored checksum as
the start. Such a frame means that the broken one was once whole, or, within the last commit, that the power failed
before all of its frames were on the medium: they get there in any order until the commit was synced.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

HEADER = struct.Struct(">8I")
"""magic, format, page size, checkpoint number, two salts, two checksums"""
FRAME = struct.Struct(">6I")
"""page number, size of the database in pages after a commit (else 0), two salts, two checksums"""
MAGIC_LITTLE, MAGIC_BIG = 0x377F0682, 0x377F0683
"""The words that are summed up are little-endian, big-endian."""
FORMAT = 3_007_000
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Scan:
    """What a WAL holds.

    Attributes:
        sound: frames from the start that fit together.
        behind: frames that are whole behind the first one that isn't.
        frames: to be kept of the file, up to the last commit among the whole ones.
        broken: of `frames`, those that are not whole.
        header_broken: the header isn't whole, though frames are.
        whole: of each frame of the file, whether it is.
        unsynced: what is broken is within the last commit, which may never have been acknowledged.
    """

    sound: int = 0
    behind: int = 0
    frames: int = 0
    broken: int = 0
    header_broken: bool = False
    unsynced: bool = False
    whole: tuple[bool, ...] = ()

    @property
    def damage(self) -> str | None:
        """In words; None for a sound file and for a torn end."""
        if not self.behind and not self.header_broken:
            return None
        what = "header" if self.header_broken else f"frame {self.sound + 1}"
        where = "within its last commit" if self.unsynced else f"with {self.behind + self.sound} whole ones around it"
        return f"{what} of the write-ahead log is broken, {where}"


def checksum(data: bytes | memoryview, start: tuple[int, int], *, big: bool) -> tuple[int, int]:
    """The running checksum over a multiple of 8 bytes."""
    one, two = start
    words = iter(struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        one = (one + even + two) & _MASK
        two = (two + odd + one) & _MASK
    return one, two


class _Frames:
    """The frames of a file, with what each says of itself."""

    def __init__(self, content: bytes, page_size: int, *, big: bool) -> None:
        self.page_size = page_size
        self._step = FRAME.size + page_size
        self._content = memoryview(content)
        self._big = big
        self.count = max(0, len(content) - HEADER.size) // self._step
        self.said = [FRAME.unpack_from(content, self.offset(number)) for number in range(self.count)]

    def offset(self, number: int) -> int:
        """Where a frame (from 0) begins in the file."""
        return HEADER.size + number * self._step

    def sums(self, number: int, start: tuple[int, int]) -> tuple[int, int]:
        """What a frame's checksum ought to be after `start`."""
        offset = self.offset(number)
        start = checksum(self._content[offset : offset + 8], start, big=self._big)
        return checksum(self._content[offset + FRAME.size : offset + self._step], start, big=self._big)


def _read(content: bytes, page_size: int) -> tuple[_Frames, tuple[int, int], tuple[int, int] | None]:
    """The frames, the salts of their generation, and the header's checksum where the header is whole."""
    magic, form, size, _, salt_one, salt_two, *sums = HEADER.unpack_from(content)
    big = magic == MAGIC_BIG
    whole = magic in (MAGIC_LITTLE, MAGIC_BIG) and form == FORMAT
    if whole and checksum(content[:24], (0, 0), big=big) == tuple(sums):
        return _Frames(content, size, big=big), (salt_one, salt_two), (sums[0], sums[1])
    frames = _Frames(content, page_size, big=sys.byteorder == "big")
    salts = [said[2:4] for said in frames.said[:2]]
    # the first frame is of the newest generation, unless its salts are what is broken
    newest = salts[0] if len(salts) < 2 or any(said[2:4] == salts[0] for said in frames.said[1:]) else salts[1]
    return frames, newest, None


def scan(content: bytes, page_size: int = 4096) -> Scan:
    """Looks through a WAL file.

    Args:
        page_size: of the database, for a file whose header is broken.
    """
    if len(content) < HEADER.size + FRAME.size:
        return Scan()
    frames, salts, start = _read(content, page_size)
    if not frames.count:
        return Scan()
    whole: list[bool] = []
    for number, said in enumerate(frames.said):
        whole.append(said[2:4] == salts and start is not None and frames.sums(number, start) == said[4:6])
        start = said[4:6]
    sound = whole.index(False) if False in whole else len(whole)
    commits = [number for number, said in enumerate(frames.said) if whole[number] and said[1]]
    kept = commits[-1] + 1 if commits else 0
    behind = sum(whole[sound:kept])  # behind the last commit stands what was given up, from a transaction that failed
    header_broken = bool(behind) and _read(content, page_size)[2] is None
    unsynced = bool(behind) and not header_broken and not any(sound < number < kept - 1 for number in commits)
    return Scan(sound, behind, kept, whole[:kept].count(False), header_broken, unsynced, tuple(whole))


def resealed(content: bytes, page_size: int = 4096, *, broken: bool = True) -> bytes:
    """The same WAL with all frames up to the last whole commit made to fit together again.

    What a broken frame holds is not to be trusted: the rows have seals of their own, and the database is built anew
    from it.

    Args:
        broken: keep broken frames as they are, but for those of another generation (one flipped bit leaves one of the
            two salts) and those that name an impossible page. One that isn't kept becomes a copy of the next one that
            is: what its page held before is read instead.
    """
    found = scan(content, page_size)
    if not found.frames:
        return b""
    frames, salts, _ = _read(content, page_size)
    kept = frames.said[: found.frames]
    largest = max(page for page, size, *said in kept if said[:2] == list(salts)) + len(kept)
    _, _, _, number, *_ = HEADER.unpack_from(content)
    magic = MAGIC_BIG if sys.byteorder == "big" else MAGIC_LITTLE
    big = magic == MAGIC_BIG
    head = struct.pack(">6I", magic, FORMAT, frames.page_size, number, *salts)
    sums = checksum(head, (0, 0), big=big)
    result = [head + struct.pack(">2I", *sums)]
    usable: Sequence[bool] = found.whole[: found.frames]
    if broken:
        usable = [0 < page <= largest and (one == salts[0] or two == salts[1]) for page, _, one, two, *_ in kept]
    for here in range(found.frames):
        source = usable.index(True, here)
        offset = frames.offset(source)
        start, page = content[offset : offset + 8], content[offset + FRAME.size : frames.offset(source + 1)]
        sums = checksum(page, checksum(start, sums, big=big), big=big)
        result.append(start + struct.pack(">4I", *salts, *sums) + page)
    return b"".join(result)
