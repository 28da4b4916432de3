"""What the journal's volume is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.journal.filesystem import Volume, examine, kind_in_mountinfo
from tests.journal.conftest import Mount

TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /dev/shm rw - tmpfs tmpfs rw
31 22 0:26 / /mnt/with\\040space rw master:2 - nfs4 host:/export rw
32 22 0:27 / /mnt rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/dev/shm/x", "tmpfs"),
        ("/mnt/with space/x", "nfs4"),
        ("/mnt/x", "xfs"),
        ("/mntx", "ext4"),
    ],
)
def test_the_longest_mount_point_tells_the_kind(place: str, kind: str) -> None:
    assert kind_in_mountinfo(Path(place), TABLE) == kind


def test_a_directory_that_is_not_there_yet_is_examined_by_its_parent(tmp_path: Path) -> None:
    volume = examine(tmp_path / "a" / "b")
    assert volume.free > 0
    assert volume.sync is not None
    assert volume.sync > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "sync", "said"),
    [
        ("tmpfs", 1e-6, "not a reboot"),
        ("overlay", 1e-3, "not the removal of the container"),
        ("nfs4", 1e-3, "network file system"),
        ("ext4", 0.05, "a sync takes 50 ms"),
        ("ext4", 1e-6, "faster than any disk"),
    ],
)
def test_what_does_not_survive_is_said(kind: str, sync: float, said: str) -> None:
    warnings = Volume(kind, 1 << 30, sync).warnings
    assert len(warnings) == 1
    assert said in warnings[0]


def test_an_ordinary_disk_needs_no_warning() -> None:
    assert Volume("ext4", 1 << 30, 2e-4).warnings == ()


def test_a_real_tmpfs_is_known(mount: Mount) -> None:
    assert examine(mount("tmpfs", 4)).kind == "tmpfs"
