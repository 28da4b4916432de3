"""What the journal's volume is, on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
import trio

from sidecar.journal.volume import examine
from tests.journal.conftest import Mount
from tests.journal.running import MIB, appended, everything, payload, running, settled, until


def test_a_real_tmpfs_is_known(mount: Mount) -> None:
    assert examine(mount("tmpfs", 4)).kind == "tmpfs"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    volume = examine(tmp_path / "not" / "there")
    assert volume.free > 0
    assert volume.fsync > 0
    assert not list(tmp_path.iterdir())


def test_a_start_on_memory_says_what_is_lost(mount: Mount) -> None:
    async def main(directory: Path) -> None:
        async with running(directory):
            pass

    with structlog.testing.capture_logs() as lines:
        trio.run(main, mount("tmpfs", 64))
    assert [line["event"] for line in lines if "tmpfs is memory" in line["message"]] == ["journal_volume"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
async def test_a_full_disk_refuses_drains_and_takes_again(mount: Mount, kind: str) -> None:
    where = mount(kind, 96)
    async with running(where / "journal") as journal:
        await appended(journal, [payload(n, 1000) for n in range(1000)])
        hog = where / "hog"
        with hog.open("wb") as file:  # somebody else fills the volume to the last byte
            while True:
                try:
                    file.write(bytes(MIB))
                    file.flush()
                except OSError:
                    break
        await until(lambda: journal.fault is not None)
        assert "disk full" in str(journal.fault)
        assert len(await everything(journal)) == 1000
        await settled(journal, range(1, 901))  # not even a DELETE works on a full disk without the reserve
        assert journal.waiting == 100
        hog.unlink()
        await until(lambda: journal.fault is None)
        await appended(journal, [payload(n, 1000) for n in range(1000)])
        assert (where / "journal" / "reserve").stat().st_size == 16 * MIB
        assert journal.waiting == 1100
