"""The Faktory that is measured: the real one where it is found, else the embedded one."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import found
from bench.children import BenchError, Child, python
from bench.wire import Wire, WireError

START_PATIENCE: Final = 20.0  # seconds until it must greet
EMBEDDED: Final = "the embedded Faktory"
STOP_PATIENCE: Final = 15.0  # seconds for Faktory to end its Redis


class LocalFaktory:
    """A Faktory of our own on loopback, with nothing in it.

    Args:
        directory: for what it says; its data have a directory of their own.
    """

    def __init__(self, directory: Path) -> None:
        self.name = f"{EMBEDDED} (in memory)"
        self._data: Path | None = None
        program, redis = found.faktory(), found.redis_server()
        if program is None or redis is None:
            self._child = Child(self.name, python("bench.servers", "faktory"), directory / "faktory.stderr")
            self.port = int(self._child.read_line(START_PATIENCE))
        else:
            self._child = self._start_real(program, redis, directory)

    @property
    def url(self) -> str:
        """What clients use."""
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    def close(self) -> None:
        """Ends it and removes its data."""
        self._child.stop(STOP_PATIENCE)
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)

    def _start_real(self, program: Path, redis: Path, directory: Path) -> Child:
        self.name = "Faktory"
        self.port, web = free_port(), free_port()
        self._data = Path(tempfile.mkdtemp(prefix="fbench-", dir=_short_directory()))
        command = [str(program), "-b", f"127.0.0.1:{self.port}", "-w", f"127.0.0.1:{web}", "-d", str(self._data)]
        settings = {"PATH": f"{redis.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        child = Child(self.name, [*command, "-e", "development"], directory / "faktory.stderr", settings)
        deadline = time.monotonic() + START_PATIENCE
        while not self._greets():
            if not child.running or time.monotonic() > deadline:
                raise BenchError(child.complaint("does not start"))
            time.sleep(0.05)
        return child

    def _greets(self) -> bool:
        try:
            Wire(self.url).close()
        except WireError:
            return False
        return True


def free_port() -> int:
    """A port of loopback that nobody uses right now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _short_directory() -> str | None:
    """Where Faktory may keep its data: the path of its Redis socket must stay below 104 bytes."""
    default = tempfile.gettempdir()
    return default if len(default) < 60 else "/tmp"
