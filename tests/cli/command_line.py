"""The command line as users run it: a process, its exit code, what it printed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from tests.real.sidecar_command import clean_environment

TIMEOUT = 30.0
"""Seconds after which a command counts as hanging."""


def sidecar(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m sidecar` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        env=clean_environment(environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
