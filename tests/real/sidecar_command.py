"""The sidecar as users run it: a process of its own, told by its environment, watched by its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.real.log_pipe import LogPipe
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient

START_TIMEOUT = 20.0
"""Seconds until the listeners must be up; far above the promised 1.5 s because tests share a busy machine."""

BANNER = {
    "faktory": ("producers", r"FAKTORY_URL=\S+:(\d+),"),
    "http": ("http", r"http://\S+:(\d+) "),
}
"""The record of the start that tells where an endpoint listens, and where in its message the port is."""


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without anything that would steer a sidecar or a Faktory client, plus `settings`."""
    prefixes = ("SIDECAR_", "BATCH_", "FAKTORY_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return inherited | dict(settings)


def hear_signals() -> None:
    """Undo what `nohup` and a shell's `&` have left ignored: our children would ignore it, as they are asked to."""
    for number, usual in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


class SidecarProcess:
    """`python -m sidecar serve`, with JSON logs on stderr kept in a file.

    Args:
        directory: where the log and the journal go.
        settings: environment variables, on top of free loopback ports and JSON logs.
        arguments: the command line after `python -m sidecar`.
        program: a module to run in place of `sidecar`.
        piped: stderr is a pipe, `log_pipe`, that is copied into the file, and not the file itself.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        arguments: Sequence[str] = ("serve",),
        *,
        program: str = "sidecar",
        piped: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._log_path = directory / "sidecar.log"
        self.password = settings.get("SIDECAR_LISTEN_PASSWORD")
        defaults = {
            "SIDECAR_LISTEN": "localhost:0",
            "SIDECAR_HTTP_LISTEN": "localhost:0",
            "SIDECAR_LOG_FORMAT": "json",
            "SIDECAR_JOURNAL_DIR": str(directory / "journal"),
        }
        self.log_pipe = LogPipe(self._log_path) if piped else None
        with self._log_path.open("ab" if piped else "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program, *arguments],
                env=clean_environment(defaults | dict(settings)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.log_pipe.writer if self.log_pipe else log,
            )
        if self.log_pipe:
            self.log_pipe.handed_over()

    @property
    def port(self) -> int:
        """The port of the local Faktory endpoint."""
        return self._listening("faktory")

    @property
    def http_port(self) -> int:
        """The port of the HTTP endpoint."""
        return self._listening("http")

    @property
    def url(self) -> str:
        """What local clients put into FAKTORY_URL."""
        secret = f":{self.password}@" if self.password else ""
        return f"tcp://{secret}localhost:{self.port}"

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self.process.poll()

    def client(self, **options: Any) -> RawClient:
        """A new raw connection to the local Faktory endpoint."""
        return RawClient(self.port, self.password, **options)

    def log_text(self) -> str:
        """All of stderr so far."""
        return self._log_path.read_text(errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """All log records so far; lines that are no JSON objects come as `{"event": "", "message": line}`."""
        records: list[dict[str, Any]] = []
        for line in self.log_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            records.append(record if isinstance(record, dict) else {"event": "", "message": line})
        return records

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log records of one event."""
        return [record for record in self.log() if record.get("event") == name]

    def wait_for_event(self, name: str, *, timeout: float = 10.0) -> dict[str, Any]:
        """The first record of an event, waited for."""
        found = wait_for(lambda: self.events(name), what=f"log event {name}", timeout=timeout)
        return found[0]

    def wait_until_listening(self) -> None:
        """Returns when the Faktory endpoint accepts; AssertionError when the process ends instead."""
        wait_for(
            lambda: self.exit_code is not None or self._ports("faktory"),
            what="the sidecar listens",
            timeout=START_TIMEOUT,
        )
        if self.exit_code is not None:
            raise AssertionError(f"the sidecar ended with {self.exit_code}:\n{self.log_text()[-4000:]}")

    def terminate(self) -> None:
        """Asks for a graceful stop (SIGTERM)."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """Ends it with SIGKILL and waits for the end."""
        self.process.kill()
        return self.wait(10)

    def wait(self, timeout: float = 40.0) -> int:
        """Waits for the end and returns the exit code."""
        code = self.process.wait(timeout)
        if self.log_pipe:
            self.log_pipe.finish()
        return code

    def _ports(self, edge: str) -> list[str]:
        event, pattern = BANNER[edge]
        found = [re.search(pattern, str(record["message"])) for record in self.events(event)]
        return [match[1] for match in found if match is not None]

    def _listening(self, edge: str) -> int:
        ports = wait_for(lambda: self._ports(edge), what=f"the start tells the port of {edge}", timeout=START_TIMEOUT)
        return int(ports[0])
