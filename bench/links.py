"""Links to a Faktory: of some round trip, or a plain proxy without any. By Toxiproxy where it is found."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final, Protocol

from bench import found
from bench.children import BenchError, Child, python
from bench.faktory import free_port

START_PATIENCE: Final = 10.0  # seconds until Toxiproxy must answer


class Links(Protocol):
    """Makes links to servers."""

    name: str

    def open(self, host: str, port: int, rtt: float, *, listen: int = 0) -> int:
        """A link of this round trip, in seconds; the port it listens on, any or the one that is given."""

    def pids(self) -> list[int]:
        """The processes that carry the bytes."""

    def close(self) -> None:
        """Ends all links."""


def links(directory: Path) -> Links:
    """What this machine has for it."""
    program = found.toxiproxy_server()
    return SimulatedLinks(directory) if program is None else ToxiproxyLinks(program, directory)


class SimulatedLinks:
    """The simulated WAN, a process for each link. Its delay is rounded up to whole milliseconds."""

    name = "the simulated WAN"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: list[Child] = []

    def open(self, host: str, port: int, rtt: float, *, listen: int = 0) -> int:
        command = python("bench.servers", "wan", host, str(port), str(rtt), str(listen))
        child = Child("the simulated WAN", command, self._directory / "wan.stderr")
        self._children.append(child)
        return int(child.read_line())

    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def close(self) -> None:
        for child in self._children:
            child.stop()


class ToxiproxyLinks:
    """A Toxiproxy: its latency is exact to a fraction of a millisecond, and keeps pipelining as it is.

    Args:
        program: toxiproxy-server.
    """

    name = "Toxiproxy"

    def __init__(self, program: Path, directory: Path) -> None:
        self._api = free_port()
        command = [str(program), "-host", "127.0.0.1", "-port", str(self._api)]
        self._child = Child(self.name, command, directory / "toxiproxy.stderr", {"LOG_LEVEL": "error"})
        self._count = 0
        deadline = time.monotonic() + START_PATIENCE
        while not self._answers():
            if not self._child.running or time.monotonic() > deadline:
                raise BenchError(self._child.complaint("does not start"))
            time.sleep(0.02)

    def open(self, host: str, port: int, rtt: float, *, listen: int = 0) -> int:
        self._count += 1
        name = f"link{self._count}"
        made = self._call("/proxies", {"name": name, "listen": f"127.0.0.1:{listen}", "upstream": f"{host}:{port}"})
        milliseconds = round(rtt * 1000)
        for stream, part in (("upstream", milliseconds // 2), ("downstream", milliseconds - milliseconds // 2)):
            if part:
                toxic = {"type": "latency", "stream": stream, "attributes": {"latency": part}}
                self._call(f"/proxies/{name}/toxics", toxic)
        return int(str(made["listen"]).rpartition(":")[2])

    def pids(self) -> list[int]:
        return [self._child.pid]

    def close(self) -> None:
        self._child.stop()

    def _answers(self) -> bool:
        try:
            self._call("/version")
        except OSError:
            return False
        return True

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._api}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "faktory-sidecar-bench"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            raise BenchError(f"Toxiproxy: {error.read().decode(errors='replace')}") from error
