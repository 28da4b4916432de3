"""Runs our little programs around real client libraries, and reads what they report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real import parts
from tests.real.polling import wait_for
from tests.real.sidecar_command import clean_environment

END_TIMEOUT = 45.0
"""Seconds until a program must have ended by itself."""


@dataclass(frozen=True, slots=True)
class Library:
    """A client library: which real part its program needs, and how its scenarios name it."""

    name: str
    part: str | None
    does: frozenset[str]
    client: str = ""

    def command(self) -> list[str]:
        """The command that runs the program; PartMissing when its part can't be had."""
        match self.part:
            case None:
                return [sys.executable, "-m", "tests.clients.python.pyfaktory_client"]
            case "go-client":
                return [str(parts.go_client())]
            case "node-clients":
                return ["node", str(parts.node_clients() / "client.mjs")]
        raise AssertionError(f"no program for {self.part}")


GO = Library("go", "go-client", frozenset({"push", "push-bulk", "work"}))
NODE_WORKER = Library(
    "node-faktory-worker",
    "node-clients",
    frozenset({"push", "push-at-once", "push-bulk", "work"}),
    client="faktory-worker",
)
NODE_CLIENT = Library("node-faktory-client", "node-clients", frozenset({"push", "work"}), client="faktory-client")
PYFAKTORY = Library("pyfaktory", None, frozenset({"push", "push-bulk", "work"}))

LIBRARIES = (GO, NODE_WORKER, NODE_CLIENT, PYFAKTORY)


class Program:
    """One run of a library's program.

    Args:
        library: whose program.
        directory: where its reports and its stderr go.
        url: its FAKTORY_URL.
        scenario: what it is to do; fields as in tests/clients/go/main.go.
        wrapper: a command line to put before the program's own.
    """

    def __init__(
        self,
        library: Library,
        directory: Path,
        url: str,
        scenario: Mapping[str, Any],
        *,
        wrapper: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._reports = directory / f"{library.name}-{scenario['do']}.jsonl"
        self._errors = directory / f"{library.name}-{scenario['do']}.stderr"
        content = json.dumps({"client": library.client, "concurrency": 4, "expect": 0, **scenario})
        # Not a pipe: some of the jobs are larger than a pipe holds, and nobody would be writing.
        stdin = directory / f"{library.name}-{scenario['do']}.stdin"
        stdin.write_text(content)
        with stdin.open("rb") as source, self._reports.open("ab") as out, self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*wrapper, *library.command()],
                cwd=Path(__file__).resolve().parent.parent.parent,
                env=clean_environment({"FAKTORY_URL": url, **(settings or {})}),
                stdin=source,
                stdout=out,
                stderr=errors,
            )
        self.library = library

    def reports(self, kind: str) -> list[Any]:
        """The values of all complete reports of a kind so far: `pushed`, `refused`, `ran`, `state`, `ended`."""
        lines = self._reports.read_bytes().split(b"\n")[:-1]
        events = [json.loads(line) for line in lines]
        return [event[kind] for event in events if kind in event]

    def report(self, kind: str, *, timeout: float = END_TIMEOUT) -> Any:
        """The first report of a kind, waited for; AssertionError when the program ends without it."""
        wait_for(lambda: self.reports(kind) or self.process.poll() is not None, what=kind, timeout=timeout)
        found = self.reports(kind)
        assert found, f"{self.library.name} ended with {self.process.poll()}: {self.errors()}"
        return found[0]

    def wait_for_state(self, state: str, *, timeout: float = END_TIMEOUT) -> None:
        """Waits until a worker reports a state."""
        wait_for(
            lambda: state in self.reports("state"),
            what=f"{self.library.name} is told {state}: {self.errors()}",
            timeout=timeout,
        )

    def errors(self) -> str:
        """What it wrote to stderr."""
        return self._errors.read_text(errors="replace")[-3000:]

    def wait(self, *, timeout: float = END_TIMEOUT) -> int:
        """Waits for its end and returns the exit code."""
        return self.process.wait(timeout)

    def finish(self, *, timeout: float = END_TIMEOUT) -> None:
        """Waits for its end, which must be a good one."""
        code = self.wait(timeout=timeout)
        assert code == 0, f"{self.library.name} ended with {code}: {self.errors()}"

    def end(self) -> None:
        """Kills it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
