"""The benchmark as users run it: a process, its exit code, what it printed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from bench.beside import HERE
from tests.real.sidecar_command import clean_environment

TIMEOUT = 55.0
"""Seconds after which it counts as hanging."""


def bench(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m bench` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env=clean_environment(environ or {}),
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
