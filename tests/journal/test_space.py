"""The words for what bounds a journal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.journal import space
from sidecar.journal.space import MIB, Space


@pytest.mark.parametrize(
    ("largest", "said"), [(17 * MIB, "RLIMIT_FSIZE of this process"), (1 << 40, "SIDECAR_JOURNAL_MAX_BYTES")]
)
def test_what_bounds_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, said: str) -> None:
    monkeypatch.setattr(space, "_largest_file", lambda: largest)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        room = Space(tmp_path, descriptor, space.bound_of(17 * MIB))
        assert f"({said})" in (room.lacks(1) or "")
        assert (room.never_fits(10 * MIB) or "").endswith(said)
    finally:
        os.close(descriptor)
