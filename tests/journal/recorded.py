"""A disk as the shim's record tells it: what is on the medium for certain after each call.

The strict reading of POSIX: a file's contents are safe once the file was synced, its name once its directory was.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEAD = struct.Struct("<cHQI")
SECTOR = 512


def note_files(record: Path, directory: Path) -> None:
    """Adds to a record what the files hold: a process can be killed between a call and the note of it."""
    with record.open("ab") as file:
        for path in filter(Path.is_file, directory.iterdir()):
            name, data = str(path).encode(), path.read_bytes()
            file.write(_HEAD.pack(b"t", len(name), len(data), 0) + name)
            file.write(_HEAD.pack(b"w", len(name), 0, len(data)) + name + data)


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    unsafe: list[tuple[int, bytes | None]] = field(default_factory=list)

    def apply(self, offset: int, data: bytes | None) -> None:
        """A write at an offset, or (None) a truncation to it."""
        if data is None:
            del self.safe[offset:]
            self.safe.extend(bytes(offset - len(self.safe)))
            return
        self.safe.extend(bytes(max(0, offset - len(self.safe))))
        self.safe[offset : offset + len(data)] = data


class Medium:
    """Goes through a record; between two calls the power may fail."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._names: dict[str, _File] = {}
        self._safe_names: dict[str, _File] = {}

    def calls(self, record: bytes) -> Iterator[tuple[str, str, bytes]]:
        """Applies the calls, and yields each as it is done: operation, path, data."""
        at = 0
        while at + _HEAD.size <= len(record):
            kind, width, offset, size = _HEAD.unpack_from(record, at)
            start = at + _HEAD.size + width
            path, data = record[at + _HEAD.size : start].decode(), record[start : start + size]
            at = start + size
            if at > len(record):
                return
            self._apply(kind.decode(), path, offset, data)
            yield kind.decode(), path, data

    def _apply(self, kind: str, path: str, offset: int, data: bytes) -> None:
        inside = path.startswith(f"{self._directory}/")
        if kind == "s" and path == self._directory:
            self._safe_names = dict(self._names)
        elif not inside or path.endswith("-shm") or path.endswith(" (deleted)"):
            return
        elif kind == "s":
            file = self._names.setdefault(path, _File())
            for where, what in file.unsafe:
                file.apply(where, what)
            file.unsafe.clear()
        elif kind == "u":
            self._names.pop(path, None)
        elif kind == "r":
            self._names[data.decode()] = self._names.pop(path)
        else:
            file = self._names.setdefault(path, _File())
            file.unsafe.append((offset, data if kind == "w" else None))

    def power_fails(self, target: Path, dice: random.Random | None = None) -> None:
        """Writes what is left into a directory.

        Args:
            dice: lets some of the calls that weren't synced reach the medium all the same, in any choice, whole or
                in part; None: none of them did.
        """
        target.mkdir()
        for name, file in self._safe_names.items():
            left = _File(bytearray(file.safe))
            for offset, data in file.unsafe if dice is not None else ():
                assert dice is not None
                if dice.random() < 0.5:
                    cut = None if data is None else data[: dice.choice([len(data), len(data) // SECTOR // 2 * SECTOR])]
                    left.apply(offset, cut)
            path = target / Path(name).relative_to(self._directory)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(left.safe)
