"""When a file was made: the one time of it that no copy and no change of owner can carry over."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_HERE = -100  # AT_FDCWD
_BIRTH = 0x800  # STATX_BTIME, of statx(2)
_BIRTH_AT = struct.Struct("=qI")
_OFFSET = 80


def birth_of(path: Path) -> int:
    """Nanoseconds since the epoch; 0 where the system or the file system doesn't tell.

    Raises:
        FileNotFoundError: there is no such file.
    """
    told = getattr(os.stat(path), "st_birthtime", None)  # macOS
    if told is not None:
        return int(told * 1e9)
    statx = getattr(ctypes.CDLL(None), "statx", None)
    found = ctypes.create_string_buffer(256)
    if statx is None or statx(_HERE, os.fsencode(path), 0, _BIRTH, found):
        return 0
    mask, *_ = struct.unpack_from("=I", found)
    seconds, nanoseconds = _BIRTH_AT.unpack_from(found, _OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if mask & _BIRTH else 0
