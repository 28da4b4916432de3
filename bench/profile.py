"""Where a sidecar's Python time goes while a row is measured, by py-spy where that is installed.

Only samples in which a thread holds the interpreter's lock count: what waits for the disk, a socket or a core is not
work. On a busy machine a plain profile shows little but such waits.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

RATE: Final = 250  # samples a second
SHOWN: Final = 20  # functions


class Profiler:
    """Profiles one process after the other.

    Args:
        directory: for the samples, one file of collapsed stacks a row; the last round's stays.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._program = shutil.which("py-spy")
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def missing(self) -> str:
        """Why nothing is profiled, "" when it is."""
        return "" if self._program else "--profile: py-spy is not installed"

    def start(self, row: str, pid: int, seconds: float) -> None:
        """Samples a process for so many seconds, without stopping it."""
        if self._program is None:
            return
        options = ["--nonblocking", "--gil", "--threads", "--function", "--rate", str(RATE), "--format", "raw"]
        place = ["--duration", str(max(1, math.ceil(seconds))), "--output", str(self._file(row))]
        self._running = subprocess.Popen(
            [self._program, "record", "--pid", str(pid), *options, *place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def finish(self) -> None:
        """Waits for the samples."""
        if self._running is not None:
            self._running.wait()
            self._running = None

    def summary(self, row: str) -> list[str]:
        """The functions in which a row spent most, a line each: share of the samples, also with callees, function."""
        file = self._file(row)
        if not file.exists():
            return []
        own, whole, total = Counter[str](), Counter[str](), 0
        for line in file.read_text(errors="replace").splitlines():
            stack, _, count = line.rpartition(" ")
            frames = stack.split(";")
            own[frames[-1]] += int(count)
            whole.update(dict.fromkeys(frames, int(count)))
            total += int(count)
        return [f"{count / total:6.1%} {whole[name] / total:6.1%}  {name}" for name, count in own.most_common(SHOWN)]

    def _file(self, row: str) -> Path:
        return self._directory / f"{row}.txt"
