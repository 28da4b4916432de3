"""Sidecars that are measured: the real program, with its defaults but for addresses, directory and mode."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.children import BenchError, Child, python

START_PATIENCE: Final = 15.0  # seconds until it must listen and have its link
STOP_PATIENCE: Final = 30.0  # seconds for its drain
SETTINGS: Final = {
    "SIDECAR_LISTEN": "127.0.0.1:0",
    "SIDECAR_HTTP_LISTEN": "127.0.0.1:0",
    "SIDECAR_LOG_FORMAT": "json",
}


class RunningSidecar:
    """One `faktory-sidecar serve`.

    Args:
        upstream: URL of its Faktory.
        directory: for its journal and its log; made.
        settings: over the defaults.
        link: wait for its link; False where its Faktory can't be reached yet.
        tree: the checkout whose sidecar it is; None: this one.
    """

    def __init__(
        self,
        name: str,
        upstream: str,
        directory: Path,
        settings: Mapping[str, str],
        *,
        link: bool = True,
        tree: Path | None = None,
    ) -> None:
        self.name = name
        directory.mkdir(parents=True, exist_ok=True)
        environment = {
            **SETTINGS,
            "SIDECAR_UPSTREAM": upstream,
            "SIDECAR_JOURNAL_DIR": str(directory / "journal"),
            **settings,
        }
        if tree is not None:
            environment["PYTHONPATH"] = str(tree)
        began = time.monotonic()
        self._child = Child(name, python("sidecar", "serve"), directory / "log", environment)
        self.url = self._wait_for("producers", r"FAKTORY_URL=(\S+?),")
        self.http_url = self._wait_for("http", r"(http://\S+)")
        self._wait_for("batch_config", "(.)")
        self.listening_after = time.monotonic() - began
        if link:
            self._wait_for("link_up", "(.)")

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.running

    def records(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self._child.said().splitlines() if line.startswith("{")]

    def close(self) -> None:
        """Ends it by SIGTERM; it drains."""
        self._child.stop(STOP_PATIENCE)

    def _wait_for(self, event: str, pattern: str) -> str:
        """The part of an event's message that matches; waits for the event."""
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < deadline and self._child.running:
            for record in self.records():
                if record.get("event") == event and (found := re.search(pattern, str(record.get("message")))):
                    return found[1]
            time.sleep(0.02)
        raise BenchError(self._child.complaint("does not start"))
