"""Disks that refuse, fill up, hang or turn read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journal.conftest import Scenario


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "failing_sync",
        "full_disk",
        "quota",
        "file_size",
        "file_size_lowered",
        "no_room_at_the_start",
        "read_only",
        "stop_on_broken_disk",
        "audited",
    ],
)
def test_a_disk_that_refuses(scenario: Scenario, tmp_path: Path, name: str) -> None:
    assert scenario.run(name, tmp_path / "journal").endswith("ok\n")


@pytest.mark.slow
def test_a_stalled_disk_does_not_stall_the_event_loop(scenario: Scenario, tmp_path: Path) -> None:
    assert scenario.run("stalled", tmp_path / "journal").endswith("ok\n")
