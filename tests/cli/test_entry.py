"""What every command has in common: help, versions, errors of one line, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sidecar import __version__, logs
from sidecar.cli import entry
from sidecar.config import SETTINGS
from sidecar.errors import StartError
from tests.cli.command_line import sidecar

UPSTREAM = "tcp://127.0.0.1:1"

WRONG = [
    ((), {}, "no upstream: set SIDECAR_UPSTREAM"),
    (("serve",), {}, "no upstream: set SIDECAR_UPSTREAM"),
    (("serve", "--ack", "yes"), {"SIDECAR_UPSTREAM": UPSTREAM}, "--ack is 'yes': expected disk, upstream or memory"),
    (("--ack=yes",), {"SIDECAR_UPSTREAM": UPSTREAM}, "--ack is 'yes': expected disk, upstream or memory"),
    ((), {"FAKTORY_URL": UPSTREAM, "BATCH_MAX_SIZE": "0"}, "BATCH_MAX_SIZE is '0': expected a whole number"),
    (("check",), {"FAKTORY_URL": "host:7419"}, "FAKTORY_URL is 'host:7419': expected tcp://"),
    ((), {"FAKTORY_URL": "tcp://localhost:7419"}, "that is the sidecar itself"),
    (("serve", "--no-such"), {}, "No such option"),
    (("serve", "--ack"), {}, "'--ack' requires an argument"),
    (("serve", "extra"), {}, "unexpected extra argument"),
    (("flush",), {}, "No such command 'flush'"),
    (("run",), {"SIDECAR_UPSTREAM": UPSTREAM}, "Missing argument"),
    (("run", "--", "true"), {}, "no upstream: set SIDECAR_UPSTREAM"),
    (("demo", "--rtt", "fast"), {}, "'--rtt': 'fast': expected a duration from 0ms to 2s, like 50ms"),
    (("healthcheck", "--timeout", "0"), {}, "'--timeout': 0.0 is not in the range"),
]


@pytest.mark.parametrize(("arguments", "environ", "words"), WRONG)
def test_wrong_settings_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], environ: dict[str, str], words: str
) -> None:
    ended = sidecar(*arguments, environ=environ)
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert (ended.returncode, ended.stdout) == (2, "")


def test_several_wrong_settings_are_a_line_each() -> None:
    ended = sidecar("--ack", "x", environ={"SIDECAR_UPSTREAM": UPSTREAM, "BATCH_MAX_SIZE": "x"})
    assert ended.returncode == 2
    assert [line.split()[1] for line in ended.stderr.splitlines()] == ["--ack", "BATCH_MAX_SIZE"]


def test_secrets_are_in_no_error() -> None:
    ended = sidecar("serve", "--upstream", "tcp:/:s3cret@host", "--http-token", "s3cret\n")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 2
    assert "s3cret" not in ended.stderr


def test_version_and_help() -> None:
    assert sidecar("--version").stdout == f"faktory-sidecar {__version__}\n"
    helped = sidecar("--help").stdout
    for name in entry.COMMANDS:
        assert f"  {name} " in helped
    assert sidecar("-h").stdout == helped


def test_serve_has_an_option_for_every_setting() -> None:
    helped = sidecar("serve", "--help")
    assert helped.returncode == 0
    for setting in SETTINGS.values():
        assert f"  {setting.flag} " in helped.stdout
        assert setting.name in helped.stdout
        assert (f"  {setting.flag}-file " in helped.stdout) is setting.is_secret


def test_every_command_has_help() -> None:
    for name in entry.COMMANDS:
        ended = sidecar(name, "--help")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith(f"Usage: faktory-sidecar {name}")


def test_the_start_imports_nothing_that_it_does_not_need() -> None:
    code = "import sys; import sidecar.cli.serve; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert not loaded & {"fastapi", "hypercorn", "pyfaktory", "prometheus_client", "sidecar.demo", "sidecar.cli.check"}


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(entry.commands, "main", main)


def test_start_errors_out_of_nurseries(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fails_with(BaseExceptionGroup("", [ExceptionGroup("", [StartError("port taken", exit_code=1)])]), monkeypatch)
    assert entry.run([]) == 1
    assert capsys.readouterr().err == "error: port taken\n"


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])):
        fails_with(error, monkeypatch)
        assert entry.run([]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("defects_expected")
def test_a_bug_is_told_by_its_place_and_not_by_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "is_configured", lambda: True)  # else it would set up the log of all tests
    fails_with(ExceptionGroup("two", [StartError("x"), TypeError("hunter2")]), monkeypatch)
    before = logs.defects().get("process", 0)
    assert entry.run([]) == 1
    assert logs.defects()["process"] == before + 1
    told = capsys.readouterr().out  # where structlog writes unless told otherwise
    assert "TypeError" in told
    assert "hunter2" not in told
