"""Child processes of the benchmark. All end when it does: they are told so, or see the end of their stdin."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

import sidecar
from bench.orders import Order, Ready, Report

PATIENCE: Final = 20.0  # seconds that a program may take beyond what it was ordered to take
END_PATIENCE: Final = 3.0  # seconds between asking a process to end and killing it
_OURS: Final = ("SIDECAR_", "BATCH_", "FAKTORY_")

T = TypeVar("T")


class BenchError(Exception):
    """Why the benchmark, or one row of it, can't go on: one line."""


def clean_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: none of the settings around us, only those that are given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    path = [str(Path(sidecar.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**clean, "PYTHONPATH": os.pathsep.join(path), **(settings or {})}


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module of this installation."""
    return [sys.executable, "-P", "-m", module, *arguments]


class Child:
    """A process with pipes to its stdin and stdout; its stderr goes to a file.

    Args:
        name: for messages.
        errors: that file.
    """

    def __init__(self, name: str, command: Sequence[str], errors: Path, settings: Mapping[str, str] | None = None):
        self.name = name
        self._errors = errors
        self._data = b""
        with errors.open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                env=clean_environment(settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for the benchmark
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def write(self, data: bytes) -> None:
        """Writes to its stdin."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError as error:
            raise BenchError(self.complaint("has ended")) from error

    def read_line(self, patience: float = PATIENCE) -> bytes:
        """The next line of its stdout.

        Raises:
            BenchError: none came within so many seconds.
        """
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        deadline = time.monotonic() + patience
        parts = [self._data]
        while b"\n" not in parts[-1]:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(stdout, 1 << 20) if ready else b""
            if not data:
                raise BenchError(self.complaint("has ended" if ready else f"said nothing for {patience:.0f} s"))
            parts.append(data)
        line, _, self._data = b"".join(parts).partition(b"\n")
        return line

    def said(self) -> str:
        """What it has written to stderr."""
        return self._errors.read_text(errors="replace")

    def complaint(self, what: str) -> str:
        """What went wrong, with the last thing it said about it."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        return f"{self.name} {what}" + (f": {lines[-1][:300]}" if lines else "")

    def stop(self, patience: float = END_PATIENCE) -> None:
        """Ends it, in its own way if it can."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            return  # what it did not read is of no use any more


class Program:
    """A load program that takes orders."""

    def __init__(self, child: Child) -> None:
        self.child = child

    def prepare(self, order: Order) -> None:
        """Gives an order; `wait_ready` must follow."""
        self.child.write(msgspec.json.encode(order) + b"\n")

    def wait_ready(self) -> None:
        """Returns when it has prepared.

        Raises:
            BenchError: it could not.
        """
        ready = _decoded(self.child.read_line(), Ready)
        if not ready.ready:
            raise BenchError(f"{self.child.name}: {ready.error}")

    def go(self) -> None:
        """Starts the work."""
        self.child.write(b"go\n")

    def report(self, seconds: float) -> Report:
        """What became of it; waits for the order's time and some."""
        return _decoded(self.child.read_line(seconds + PATIENCE), Report)


def _decoded(line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError as error:
        raise BenchError(f"a load program said {line[:200]!r}") from error


class Pool:
    """The Python load programs; started when they are first needed, kept for all rows."""

    MOST: Final = 16  # processes; more producers share them as threads

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._programs: list[Program] = []

    def take(self, count: int) -> list[Program]:
        """So many of them, MOST at most."""
        while len(self._programs) < min(count, self.MOST):
            name = f"load {len(self._programs)}"
            errors = self._directory / f"{name}.stderr"
            self._programs.append(Program(Child(name, python("bench.load"), errors)))
        return self._programs[:count]

    def replace(self) -> None:
        """Forgets all of them: after a row that failed nobody knows what they are at."""
        for program in self._programs:
            program.child.stop()
        self._programs.clear()

    close = replace
