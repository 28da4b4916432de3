"""The sidecar as a process whose stderr nobody reads, or that has none, or one for another alphabet."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.embedded import EmbeddedFaktory
from tests.demo.embedded_thread import ThreadedFaktory, in_thread
from tests.real.polling import wait_for
from tests.real.ports import free_port
from tests.real.raw_client import RawClient
from tests.real.sidecar_command import clean_environment

pytestmark = pytest.mark.slow  # each starts processes of its own

NOBODY = "tcp://127.0.0.1:1"
ENDS_WITHIN = 15.0
"""Seconds from SIGTERM to the end: the drain without upstream and the last flush, on a busy machine."""
QUIET_ENDS = {"SIDECAR_DRAIN_TIMEOUT_S": "1"}


def job(index: int) -> dict[str, Any]:
    """A job."""
    return {"jid": f"jid-{index:08}", "jobtype": "T", "args": []}


class Served:
    """`serve` with a given stderr."""

    def __init__(self, directory: Path, stderr: int, upstream: str, **settings: str) -> None:
        self.port, self.http_port = free_port(), free_port()
        environment = {
            "SIDECAR_UPSTREAM": upstream,
            "SIDECAR_LISTEN": f"127.0.0.1:{self.port}",
            "SIDECAR_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "SIDECAR_JOURNAL_DIR": str(directory / "journal"),
            "SIDECAR_LOG_LEVEL": "debug",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sidecar"],
            env=clean_environment(environment | settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )

    def get(self, path: str) -> str:
        """The body of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def wait_until_up(self) -> None:
        """Returns when HTTP answers."""

        def up() -> bool:
            try:
                return bool(self.get("/livez"))
            except OSError:
                return False

        wait_for(up, what="the sidecar serves", timeout=20.0)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENDS_WITHIN)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe in which there is no room for a byte, and which nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


@contextmanager
def stopped_terminal() -> Iterator[int]:
    """A terminal on which somebody has typed Ctrl-S."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"\x13")
    termios.tcflow(terminal, termios.TCOOFF)
    yield terminal
    os.close(terminal)
    os.close(keyboard)


@contextmanager
def gone_terminal() -> Iterator[int]:
    """A terminal whose window was closed."""
    keyboard, terminal = pty.openpty()
    os.close(keyboard)
    yield terminal
    os.close(terminal)


@contextmanager
def reading_only() -> Iterator[int]:
    """A file that can't be written to."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("stderr", [full_pipe, stopped_terminal, gone_terminal, reading_only])
def test_a_log_that_nobody_reads_stops_nothing(
    tmp_path: Path, stderr: Callable[[], AbstractContextManager[int]]
) -> None:
    server = EmbeddedFaktory()
    with in_thread(server) as token, stderr() as descriptor, Served(tmp_path, descriptor, server.url) as served:
        upstream = ThreadedFaktory(server, token, None)
        served.wait_until_up()
        for index in range(300):
            with RawClient(served.port) as client:
                assert client.push(job(index)) == "OK"
            assert served.get("/livez")
        wait_for(lambda: len(upstream.stored()) == 300, what="all jobs arrive")
        assert served.stop() == 0


def test_without_stderr_it_serves_and_nothing_else_gets_its_number(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sidecar"]
    environment = {"SIDECAR_UPSTREAM": NOBODY, "SIDECAR_LISTEN": f"127.0.0.1:{(port := free_port())}"}
    environment |= {"SIDECAR_HTTP_LISTEN": "off", "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal")}
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], env=clean_environment(environment)
    )
    try:

        def pushed() -> bool:
            try:
                with RawClient(port) as client:
                    return client.push(job(1)) == "OK"
            except OSError:
                return False

        wait_for(pushed, what="a push is taken", timeout=20.0)
        if sys.platform == "linux":
            assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)} == {os.devnull}
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_WITHIN) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_without_stderr_run_runs_its_command(tmp_path: Path, closed: str) -> None:
    environment = {"SIDECAR_UPSTREAM": NOBODY, "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal")} | QUIET_ENDS
    line = [sys.executable, "-m", "sidecar", "run", "--", "sh", "-c", 'echo ran >"$0"; echo said >&2; exit 3']
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *line, str(tmp_path / "ran")],
        env=clean_environment(environment),
        timeout=30,
    )
    assert done.returncode == 3
    assert (tmp_path / "ran").read_text() == "ran\n"


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONUTF8": "0"}], ids=str
)
def test_lines_are_utf8_and_json_whatever_the_locale(tmp_path: Path, locale: Mapping[str, str]) -> None:
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"} | dict(locale)
    with (
        (tmp_path / "log").open("wb") as log,
        Served(tmp_path, log.fileno(), NOBODY, SIDECAR_LOG_FORMAT="json", SIDECAR_ZOË="1", **plain) as served,
    ):
        served.wait_until_up()
        assert served.stop() == 0
    records = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert {"setting_unknown", "starting", "stopped"} <= {record["event"] for record in records}
    for record in records:
        record["message"].encode()


def test_an_error_at_the_start_with_a_full_pipe_ends_with_its_code(tmp_path: Path) -> None:
    with full_pipe() as descriptor, Served(tmp_path, descriptor, "nonsense") as served:
        assert served.process.wait(ENDS_WITHIN) == 2
