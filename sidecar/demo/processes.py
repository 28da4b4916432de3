"""The demo's child processes: its pyfaktory programs and the sidecar itself. All end when the demo does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

import sidecar
from sidecar.demo.orders import Order, Progress, Pushed, Ran, Removed, Report
from sidecar.protocol.lines import LineReader

PATIENCE = 30.0  # seconds that a program may say nothing
START_PATIENCE = 30.0  # seconds until the sidecar must listen, on a machine that has other work, too
DRAIN_PATIENCE = 15.0  # seconds that the sidecar may drain, then it is killed
_END_PATIENCE = 2.0  # seconds between SIGTERM and SIGKILL for what still runs when the demo is stopped
_KEPT_LINES = 20  # of stderr, to say what went wrong
_OURS = ("SIDECAR_", "BATCH_", "FAKTORY_")


class DemoError(Exception):
    """Why the demo can't go on: one line."""


async def run_program(name: str, order: Order, on_progress: Callable[[int], None]) -> Pushed | Ran | Removed:
    """Runs one pyfaktory program to its end and returns its last report.

    Args:
        name: of a module in this package.
        on_progress: told how many jobs are done, each time the program says so.

    Raises:
        DemoError: the program failed or went silent.
    """
    last: Report | None = None
    async with _process(f"sidecar.demo.{name}", pipe=subprocess.PIPE) as child:
        assert child.process.stdin is not None
        assert child.process.stdout is not None
        try:
            await child.process.stdin.send_all(msgspec.json.encode(order) + b"\n")
            async for line in _lines(child.process.stdout):
                last = msgspec.json.decode(line, type=Report)
                if isinstance(last, Progress):
                    on_progress(last.done)
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            raise DemoError(child.complaint(f"the {name} program hangs")) from error
        await child.process.wait()
        if last is None or isinstance(last, Progress):
            raise DemoError(child.complaint(f"the {name} program ended early"))
    return last


class LocalSidecar:
    """A running `faktory-sidecar serve`.

    Args:
        url: what producers use.
        promise: what it says `+OK` means.
    """

    def __init__(self, url: str, promise: str) -> None:
        self.url = url
        self.promise = promise
        self.exit_code: int | None = None


@asynccontextmanager
async def run_sidecar(settings: dict[str, str]) -> AsyncIterator[LocalSidecar]:
    """Runs the sidecar with these settings and no others; at the block's end it drains.

    Raises:
        DemoError: it doesn't listen, or ends otherwise than by a complete drain.
    """
    async with _process("sidecar", "serve", pipe=subprocess.DEVNULL, environment=settings) as child:
        with trio.move_on_after(START_PATIENCE):
            await child.wait_for_record("acknowledgement")
        listening, promise = child.records.get("listening"), child.records.get("acknowledgement")
        if listening is None or promise is None:
            raise DemoError(child.complaint("the sidecar does not start"))
        running = LocalSidecar(f"tcp://{listening['address']}", str(promise["message"]))
        yield running
        child.process.terminate()
        with trio.move_on_after(DRAIN_PATIENCE):
            running.exit_code = await child.process.wait()
        if running.exit_code != 0:
            raise DemoError(child.complaint("the sidecar did not drain"))


class _Child:
    """A process whose stderr is read as it comes, so that it never has to wait for us."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.records: dict[str, dict[str, Any]] = {}  # the first log record of each event
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._changed = trio.lowlevel.ParkingLot()

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in _lines(self.process.stderr, patience=float("inf")):
            self._note(line)
            self._changed.unpark_all()
        self._last_lines.append("")

    def _note(self, line: bytes) -> None:
        try:
            record = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            record = None
        if not isinstance(record, dict):
            self._last_lines.append(line.decode("utf-8", "replace"))
            return
        self.records.setdefault(str(record.get("event")), record)
        self._last_lines.append(str(record.get("message") or record.get("event")))

    async def wait_for_record(self, event: str) -> None:
        """Waits until that event was logged, or the process has ended."""
        while event not in self.records and self.process.poll() is None:
            with trio.move_on_after(0.1):
                await self._changed.park()

    def complaint(self, what: str) -> str:
        """What went wrong, with the last thing the process said about it."""
        said = [line for line in self._last_lines if line.strip()]
        return f"{what}: {said[-1].strip()}" if said else what


@asynccontextmanager
async def _process(
    module: str, *arguments: str, pipe: int, environment: dict[str, str] | None = None
) -> AsyncIterator[_Child]:
    """A Python process of this installation, ended at the block's end if it still runs.

    Args:
        pipe: what its stdin and stdout are, as `subprocess` has it.
        environment: its settings of our own; it gets none of those around us.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    path = [str(Path(sidecar.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.PIPE,
        env={**clean, "PYTHONPATH": os.pathsep.join(path), **(environment or {})},
    )
    child = _Child(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.listen)
            yield child
            nursery.cancel_scope.cancel()
    finally:
        await _end(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await trio.aclose_forcefully(stream)


async def _end(process: trio.Process) -> None:
    """Ends a process, if possible in its own way: a worker finishes the jobs that it holds."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.terminate()
            with trio.move_on_after(_END_PATIENCE):
                await process.wait()
        if process.poll() is None:
            process.kill()
        await process.wait()


async def _lines(stream: trio.abc.ReceiveStream, *, patience: float = PATIENCE) -> AsyncIterator[bytes]:
    """The lines of a process's output; `trio.TooSlowError` when it says nothing for that many seconds."""
    reader = LineReader()
    while True:
        with trio.fail_after(patience):
            data = await stream.receive_some(65_536)
        if not data:
            return
        for line in reader.feed(bytes(data)):
            yield line
