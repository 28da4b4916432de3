"""The preloaded shim, scenarios that run beneath it, and small real file systems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def missing(reason: str) -> None:
    """Skips, loudly; an error in CI, where everything ought to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (in CI this must be possible)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        missing("the shim needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = str(HERE / "shim.c")
    subprocess.run([str(compiler), "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"], check=True)
    return library


class Scenario:
    """Runs a function of `scenarios.py` in a process of its own, beneath the shim.

    Attributes:
        control: the shim's rules; a scenario writes them as it goes.
        record: what the shim saw.
    """

    def __init__(self, shim: Path, room: Path) -> None:
        self._shim = shim
        self.control = room / "shim.control"
        self.record = room / "shim.record"
        self.control.write_text("#\n")

    def start(self, name: str, *arguments: object, record: bool = False) -> subprocess.Popen[str]:
        """The process, started."""
        environment = {**os.environ, "LD_PRELOAD": str(self._shim), "SHIM_CONTROL": str(self.control)}
        if record:
            environment["SHIM_RECORD"] = str(self.record)
        command = [sys.executable, "-m", "tests.journal.scenarios", name, *map(str, arguments)]
        return subprocess.Popen(
            command, env=environment, cwd=HERE.parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, name: str, *arguments: object, record: bool = False, code: int = 0) -> str:
        """Runs it to its end; what it printed."""
        with self.start(name, *arguments, record=record) as process:
            try:
                output, _ = process.communicate(timeout=50)
            finally:
                process.kill()
        assert process.returncode == code, output
        return output


@pytest.fixture
def scenario(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Runs scenarios beneath the shim."""
    return Scenario(shim, tmp_path_factory.mktemp("control"))


Mount = Callable[[str, int], Path]


@pytest.fixture
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """Makes small file systems: `mount("tmpfs", megabytes)` or `mount("ext4", megabytes)`."""
    mounted: list[Path] = []

    def make(kind: str, megabytes: int) -> Path:
        room = tmp_path_factory.mktemp(kind)
        where = room / "mounted"
        where.mkdir()
        if os.geteuid() != 0:
            missing("mounting needs root")
        if kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(where)]
        else:
            image = room / "image"
            with image.open("wb") as file:
                file.truncate(megabytes * 1024 * 1024)
            if shutil.which("mkfs.ext4") is None:
                missing("there is no mkfs.ext4")
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
            command = ["mount", "-o", "loop", str(image), str(where)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"can't mount {kind} here: {done.stderr.strip()}")
        mounted.append(where)
        return where

    yield make
    for where in mounted:
        subprocess.run(["umount", str(where)], check=True)
