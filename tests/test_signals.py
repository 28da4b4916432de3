"""Signals: what they ask of a running sidecar, and when it hears them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.signals import catchable
from tests.conftest import SidecarFactory
from tests.real.polling import wait_for
from tests.real.sidecar_command import clean_environment

UNREACHABLE = "tcp://127.0.0.1:1"
OFF = {"SIDECAR_HTTP_LISTEN": "off"}
PATIENCE = 30.0
DRAINING = [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM, signal.SIGXCPU, signal.SIGRTMIN + 3]


def test_faults_and_job_control_are_left_alone() -> None:
    caught = set(catchable())
    assert not caught & {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTSTP}
    assert not caught & {signal.SIGKILL, signal.SIGCHLD, signal.SIGPIPE}
    assert caught >= {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGVTALRM, *DRAINING}


@pytest.mark.parametrize("number", DRAINING)
def test_it_drains_and_says_so(number: int, sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(UNREACHABLE, OFF)
    with sidecar.client() as client:
        assert client.push({"jid": "stays-here", "jobtype": "T", "args": []}) == "OK"
    sidecar.process.send_signal(number)
    sidecar.process.send_signal(
        number
    )  # a terminal that closes, a limit that is passed: they come again, and don't insist
    assert sidecar.wait() == 0
    assert "1 jobs stay in the journal" in str(sidecar.events("stopped")[0]["message"])


def test_a_hangup_is_ignored_under_nohup(sidecar_process: SidecarFactory) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sidecar = sidecar_process(UNREACHABLE, OFF)
    finally:
        signal.signal(signal.SIGHUP, before)
    sidecar.process.send_signal(signal.SIGHUP)
    with sidecar.client() as client:
        assert client.push({"jid": "taken-all-the-same", "jobtype": "T", "args": []}) == "OK"
    sidecar.terminate()
    assert sidecar.wait() == 0
    assert [record["signal"] for record in sidecar.events("stopping")] == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_the_parent_had_blocked_is_heard(number: signal.Signals, sidecar_process: SidecarFactory) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        sidecar = sidecar_process(UNREACHABLE, OFF)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sidecar.process.send_signal(number)
    assert sidecar.wait(PATIENCE) == 0


@contextmanager
def at_once(tmp_path: Path, *before: str, environ: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[bytes]]:
    """A sidecar that gets a SIGTERM as soon as its handlers are there; `before` runs it."""
    given = {
        "SIDECAR_UPSTREAM": UNREACHABLE,
        "SIDECAR_LISTEN": "127.0.0.1:0",
        "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal"),
        **OFF,
        **environ,
    }
    with subprocess.Popen(
        [*before, sys.executable, "-m", "sidecar", "serve"], env=clean_environment(given), stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal now (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def is_python(pid: int) -> bool:
    return b"sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the handlers are seen in /proc")
def test_a_signal_before_anything_is_ready_is_not_lost(tmp_path: Path) -> None:
    with at_once(tmp_path) as process:
        wait_for(
            lambda: is_python(process.pid) and handles(process.pid, signal.SIGTERM), what="handlers", timeout=PATIENCE
        )
        assert not (tmp_path / "journal").exists()  # they are there before everything else
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs a pid namespace")
def test_process_1_hears_a_signal_at_once(tmp_path: Path) -> None:
    with at_once(tmp_path, "unshare", "--pid", "--fork", "--kill-child") as parent:
        inner = wait_for(lambda: children(parent.pid), what="process 1", timeout=PATIENCE)[0]
        wait_for(lambda: is_python(inner) and handles(inner, signal.SIGTERM), what="handlers", timeout=PATIENCE)
        assert not (tmp_path / "journal").exists()
        os.kill(inner, signal.SIGTERM)
        assert parent.wait(PATIENCE) == 0


def children(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(each) for each in listing.stdout.split()]


def test_other_commands_end_by_a_signal_as_ever(tmp_path: Path) -> None:
    waiting = ("journal", "status", "--journal-dir", str(tmp_path), "--wait-empty")
    code = (
        "import sys; sys.argv[1:] = %r; import sidecar.cli.journal_tables as t; t.status_of = lambda d: {'waiting': 1}"
    )
    code = code % (list(waiting),) + "; print('ready', flush=True); import sidecar.__main__ as m; m.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
