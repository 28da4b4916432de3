"""`run`: a command with a sidecar of its own. No upstream is needed to start and to end with nothing owed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar.cli.run import child_environment, local_url
from sidecar.config import load
from sidecar.errors import StartError
from sidecar.journal.lock import Lock
from sidecar.journal.seal import DeadLetter
from sidecar.journal.slots import free_slot
from sidecar.journal.store import Addition, Change, Store
from tests.cli.command_line import TIMEOUT, sidecar
from tests.real.polling import wait_for
from tests.real.sidecar_command import clean_environment

pytestmark = pytest.mark.slow  # each starts processes of its own

PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"
GREETED = """
import os, socket, sys, urllib.parse
url = urllib.parse.urlsplit(os.environ["FAKTORY_URL"])
print(socket.create_connection((url.hostname, url.port), 5).recv(100).decode())
"""


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {
        "SIDECAR_UPSTREAM": "tcp://:upstream-secret@127.0.0.1:1",
        "SIDECAR_ACK": "memory",
        "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal"),
        **more,
    }


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return ("run", "--", sys.executable, "-c", code, *arguments)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_commands(code: int, tmp_path: Path) -> None:
    ended = sidecar(*python(f"import sys; sys.exit({code})"), environ=environment(tmp_path))
    assert (ended.returncode, ended.stdout) == (code, "")


def test_a_command_ended_by_a_signal(tmp_path: Path) -> None:
    ended = sidecar(*python("import os; os.kill(os.getpid(), 9)"), environ=environment(tmp_path))
    assert ended.returncode == 128 + signal.SIGKILL


def test_a_command_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    for command, code, words in (
        ("no-such-command", 127, "command not found"),
        (str(tmp_path / "absent"), 127, "command not found"),
        (str(tmp_path / "script"), 126, "not executable"),
    ):
        ended = sidecar("run", "--", command, environ=environment(tmp_path))
        assert ended.returncode == code
        assert ended.stderr == f"error: {command}: {words}\n"


def test_a_program_that_the_system_cannot_execute(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    ended = sidecar("run", "--", str(broken), environ=environment(tmp_path))
    assert ended.returncode == 126
    assert "error: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_arguments_are_the_commands_own(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1:])"
    for separator in (("--",), ()):
        ended = sidecar(
            "run", "--batch-max-size", "7", *separator, sys.executable, "-c", code, "--ack", "x", "--",
            environ=environment(tmp_path),
        )  # fmt: skip
        assert ended.stdout == "['--ack', 'x', '--']\n"


def test_the_command_finds_a_sidecar_and_no_secret(tmp_path: Path) -> None:
    given = environment(tmp_path, SIDECAR_HTTP_TOKEN="http-secret", MINE="kept", FAKTORY_PROVIDER="OTHER")
    seen = json.loads(sidecar(*python(PRINT_ENVIRONMENT), environ=given).stdout)
    assert seen["FAKTORY_URL"].startswith("tcp://127.0.0.1:")
    assert seen["MINE"] == "kept"
    assert "-secret" not in json.dumps(seen)
    assert not {"FAKTORY_PROVIDER", "SIDECAR_UPSTREAM", "SIDECAR_HTTP_TOKEN"} & set(seen)


def test_the_sidecar_answers_where_the_url_says(tmp_path: Path) -> None:
    ended = sidecar(*python(GREETED), environ=environment(tmp_path))
    assert ended.stdout.startswith("+HI {")


def test_a_sidecar_that_cannot_start_is_one_line_and_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    ended = sidecar(
        "run", "--listen", "192.0.2.1:0", "--listen-password", "x", "--", "touch", str(mark),
        environ=environment(tmp_path),
    )  # fmt: skip
    assert ended.returncode == 125
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "192.0.2.1" in line
    assert "Traceback" not in ended.stderr
    assert not mark.exists()


@contextmanager
def started(arguments: Sequence[str], environ: dict[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `run` in a session of its own, so that a test's terminal sends it no signals."""
    with (
        output.open("wb") as stdout,
        subprocess.Popen(
            [sys.executable, "-m", "sidecar", *arguments],
            env=clean_environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


ECHO_SIGNAL = """
import signal, sys
def ended(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(5)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, ended)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(number: signal.Signals, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with started(python(ECHO_SIGNAL), environment(tmp_path), output) as process:
        wait_for(lambda: "ready" in output.read_text(), what="the command runs", timeout=TIMEOUT)
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 5
    assert output.read_text() == f"ready\ngot {number.name}\n"


def test_a_signal_while_jobs_are_drained_stops_at_once(tmp_path: Path) -> None:
    push = (
        GREETED
        + """
peer = socket.create_connection((url.hostname, url.port), 5)
replies = peer.makefile("rb")
replies.readline()
peer.sendall(b'HELLO {"v":2}\\r\\nPUSH {"jid":"12345678","jobtype":"T","args":[]}\\r\\n')
assert replies.readline() == replies.readline() == b"+OK\\r\\n"
print("ready", flush=True)
"""
    )
    output = tmp_path / "output"
    given = environment(tmp_path, SIDECAR_DRAIN_TIMEOUT_S="600")
    with started(python(push), given, output) as process:
        wait_for(lambda: "ready" in output.read_text(), what="a job is acknowledged", timeout=TIMEOUT)
        wait_for(lambda: _children(process.pid) == [], what="the command has ended", timeout=TIMEOUT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 70  # the job was only in memory


def _children(pid: int) -> list[str]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return listing.stdout.split()


def test_overlapping_runs_have_journals_of_their_own(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "host_7419"
    with free_slot(directory) as first, free_slot(directory) as second:
        assert [first.name, second.name] == ["host_7419.run-1", "host_7419.run-2"]
    with free_slot(directory) as again:
        assert again == first
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="set SIDECAR_JOURNAL_DIR"), free_slot(tmp_path / "file" / "x"):
        pass


def filled(slot: Path, change: Change) -> None:
    lock = Lock(slot)
    store = Store(slot)
    store.commit(change)
    store.close()
    lock.release(clean=True)


LETTER = DeadLetter(1, "jid-12345", "no", 1, b"{}", 1.0)


@pytest.mark.parametrize(
    ("change", "file", "stays"),
    [
        (Change(), None, False),
        (Change([Addition(1, [b"{}"], [1], 1.0)]), None, True),
        (Change(letters=[LETTER]), None, True),
        (Change(), "notes.txt", True),
    ],
)
def test_an_empty_journal_of_a_run_is_deleted(tmp_path: Path, change: Change, file: str | None, *, stays: bool) -> None:
    directory = tmp_path / "host_7419"
    with free_slot(directory) as slot:
        filled(slot, change)
        if file is not None:
            (slot / file).touch()
    assert slot.exists() == stays
    if stays:
        assert (slot / "slot").exists()
        assert (slot / "journal.db").exists()


def test_a_journal_that_a_killed_run_left_is_not_taken_for_empty(tmp_path: Path) -> None:
    with free_slot(tmp_path / "host_7419") as slot:
        filled(slot, Change())
        Lock(slot).release(clean=False)
    assert slot.exists()


def test_a_journal_that_somebody_owns_stays(tmp_path: Path) -> None:
    with free_slot(tmp_path / "host_7419") as slot:
        filled(slot, Change())
        lock = Lock(slot)  # as `journal send` has it, which knows of no slots
    lock.release(clean=True)
    assert (slot / "journal.db").exists()


def test_a_slot_that_is_deleted_while_it_is_made_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, deleted = os.mkdir, list[object]()

    def make(path: Path, *mode: int) -> None:
        if str(path).endswith(".run-1") and not deleted:
            deleted.append(path)  # it was there, and by the next look another process has deleted it
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        made(path, *mode)

    monkeypatch.setattr(os, "mkdir", make)
    with free_slot(tmp_path / "host_7419") as slot:
        assert slot.name == "host_7419.run-1"
    assert deleted


def test_a_slot_is_had_by_one_however_often_it_is_deleted(tmp_path: Path) -> None:
    """Processes take a slot and delete it, as fast as they can: no two have the same at a time."""
    directory = tmp_path / "host_7419"
    program = (
        "import sys, pathlib\n"
        "from sidecar.journal.slots import free_slot\n"
        "from tests.cli.test_run import filled\n"
        "from sidecar.journal.store import Change\n"
        "for _ in range(100):\n"
        "    with free_slot(pathlib.Path(sys.argv[1])) as slot:\n"
        "        mine = slot / 'mine'\n"
        "        mine.touch(exist_ok=False)\n"
        "        filled(slot, Change())\n"
        "        mine.unlink()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(directory)]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert not [path for path in tmp_path.iterdir() if (path / "journal.db").exists()]


def test_a_run_within_a_run(tmp_path: Path) -> None:
    state = tmp_path / ".local" / "state" / "faktory-sidecar"
    listing = f"import os; print(sorted(os.listdir({str(state)!r})))"
    inner = ("run", "--upstream", "tcp://127.0.0.1:1", "--ack", "disk", "--", sys.executable, "-c", listing)
    given = {"SIDECAR_UPSTREAM": "tcp://127.0.0.1:1", "HOME": str(tmp_path), "XDG_STATE_HOME": ""}
    ended = sidecar("run", "--ack", "disk", "--", sys.executable, "-m", "sidecar", *inner, environ=given)
    assert (ended.returncode, ended.stdout) == (0, "['127.0.0.1_1.run-1', '127.0.0.1_1.run-2']\n")
    assert list(state.iterdir()) == []  # they are empty


def test_the_environment_of_the_command() -> None:
    environ = {
        "FAKTORY_PROVIDER": "MY_URL",
        "MY_URL": "tcp://:a@faktory",
        "FAKTORY_URL": "tcp://old",
        "SIDECAR_LISTEN_PASSWORD_FILE": os.devnull,
        "SIDECAR_UPSTREAM_PASSWORD": "b",
        "PATH": "/bin",
    }
    loaded = load({name: environ[name] for name in ("FAKTORY_PROVIDER", "MY_URL")}, {})
    assert child_environment(environ, loaded, "tcp://here:1") == {"PATH": "/bin", "FAKTORY_URL": "tcp://here:1"}


@pytest.mark.parametrize(
    ("environ", "address", "url"),
    [
        ({}, "127.0.0.1:5", "tcp://127.0.0.1:5"),
        ({"SIDECAR_LISTEN_PASSWORD": "a:b/ü"}, "[::1]:5", "tcp://:a%3Ab%2F%C3%BC@[::1]:5"),
        ({"SIDECAR_LISTEN_PASSWORD": "a", "SIDECAR_LISTEN": "0.0.0.0:5"}, "0.0.0.0:5", "tcp://:a@localhost:5"),
    ],
)
def test_the_url_for_the_command(environ: dict[str, str], address: str, url: str) -> None:
    settings = load({"SIDECAR_UPSTREAM": "tcp://faktory", **environ}, {}).settings
    assert local_url(settings, address) == url
