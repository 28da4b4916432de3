"""Where the system refuses a path, every command says which and why, in one line; it is no defect of ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.command_line import sidecar

COMMANDS = [
    ["serve"],
    ["run", "--", "true"],
    ["check"],
    ["journal", "status"],
    ["journal", "dead", "ls"],
    ["journal", "verify"],
    ["journal", "send"],
]


def settings(directory: Path) -> dict[str, str]:
    return {
        "SIDECAR_UPSTREAM": "tcp://127.0.0.1:1",
        "SIDECAR_JOURNAL_DIR": str(directory),
        "SIDECAR_LISTEN": "127.0.0.1:0",
        "SIDECAR_HTTP_LISTEN": "off",
    }


def check(done: subprocess.CompletedProcess[str], what: str) -> None:
    assert done.returncode not in (0, -6, -11), done.stdout
    said = done.stdout + done.stderr
    assert "defect" not in said
    assert "Traceback" not in said
    assert what in said.lower(), said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_name_that_is_too_long(command: list[str], tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 300)
    check(sidecar(*command, environ=settings(directory)), "file name too long")
