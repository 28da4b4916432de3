"""Hosts that can't carry a journal are told so before the first job is taken; those that can, are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.errors import StartError
from sidecar.journal.lock import LOCK_NAME, Lock, owner_of
from tests.conftest import SidecarFactory
from tests.real.sidecar_command import clean_environment

NOWHERE = "tcp://127.0.0.1:1"
JOB = '{"jid":"%08d","jobtype":"T","args":[]}'


def ended(command: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *command],
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.slow
def test_an_old_sqlite_carries_a_journal_from_start_to_start(
    old_sqlite: Path, sidecar_process: SidecarFactory, tmp_path: Path
) -> None:
    journal = str(tmp_path / "journal")
    old = {"LD_LIBRARY_PATH": str(old_sqlite), "SIDECAR_JOURNAL_DIR": journal}
    for start in range(3):
        sidecar = sidecar_process(NOWHERE, old)
        with sidecar.client() as client:
            jobs = [JOB % (start * 100 + number) for number in range(40)]
            assert client.call(f"PUSHB [{','.join(jobs)}]") == "{}"
        sidecar.terminate()
        assert sidecar.wait() == 0
    found = ended(["journal", "verify", "--journal-dir", journal], old)
    assert "120 jobs" in found.stdout, found


@pytest.mark.slow
@pytest.mark.parametrize(("command", "code"), [("serve", 1), ("check", 2)])
def test_a_sqlite_without_json_is_refused_before_the_first_job(
    old_sqlite_without_json: Path, tmp_path: Path, command: str, code: int
) -> None:
    settings = {
        "SIDECAR_UPSTREAM": NOWHERE,
        "SIDECAR_LISTEN": "127.0.0.1:0",
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal"),
        "LD_LIBRARY_PATH": str(old_sqlite_without_json),
    }
    found = ended([command], settings)
    assert found.returncode == code
    assert "no such table: json_each (SQLite 3.25.2" in found.stdout + found.stderr
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("deleted", [[], [LOCK_NAME]])
def test_a_directory_has_one_owner_whatever_becomes_of_its_files(tmp_path: Path, deleted: list[str]) -> None:
    lock = Lock(tmp_path)
    for name in deleted:
        (tmp_path / name).unlink()
    with pytest.raises(StartError, match="in use by"):
        Lock(tmp_path)
    assert owner_of(tmp_path) is not None
    lock.release(clean=True)
    assert owner_of(tmp_path) is None
    Lock(tmp_path).release(clean=True)
