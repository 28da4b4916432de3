"""A real Toxiproxy and its API: links with delay and faults between two local ports."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal

from tests.real import parts
from tests.real.polling import wait_for
from tests.real.ports import free_port

Stream = Literal["upstream", "downstream"]
"""`upstream` bends what clients send, `downstream` what they receive."""


class Link:
    """One proxied port. Toxics act on connections that are open and on those to come.

    `port` is where clients connect to. A toxic is named after its kind and stream unless told otherwise;
    adding one of a name that is there replaces it.
    """

    def __init__(self, server: Toxiproxy, name: str, port: int) -> None:
        self._server = server
        self.name = name
        self.port = port

    def latency(self, milliseconds: int, *, jitter: int = 0, stream: Stream = "downstream") -> None:
        """Delays each chunk of one direction; pipelining stays intact."""
        self._add("latency", stream, latency=milliseconds, jitter=jitter)

    def round_trip(self, milliseconds: int) -> None:
        """Makes every round trip this much longer, half of it in each direction."""
        self.latency(milliseconds // 2, stream="upstream")
        self.latency(milliseconds - milliseconds // 2, stream="downstream")

    def bandwidth(self, kilobytes_per_second: int, *, stream: Stream = "upstream") -> None:
        """Limits the rate of one direction; 0 lets nothing through."""
        self._add("bandwidth", stream, rate=kilobytes_per_second)

    def black_hole(self, *, milliseconds: int = 0, stream: Stream = "downstream") -> None:
        """Swallows all data of one direction; with a time, closes the connection after it (0: never)."""
        self._add("timeout", stream, timeout=milliseconds)

    def reset_peer(self, *, milliseconds: int = 0, stream: Stream = "downstream") -> None:
        """Resets connections (TCP RST) this long after they are opened, or after now for open ones."""
        self._add("reset_peer", stream, timeout=milliseconds)

    def slicer(
        self, average_size: int, *, variation: int = 0, microseconds: int = 0, stream: Stream = "upstream"
    ) -> None:
        """Cuts data into small pieces, with a delay after each."""
        self._add("slicer", stream, average_size=average_size, size_variation=variation, delay=microseconds)

    def limit_data(self, size: int, *, stream: Stream = "upstream") -> None:
        """Closes each connection after this many bytes of one direction."""
        self._add("limit_data", stream, bytes=size)

    def slow_close(self, milliseconds: int, *, stream: Stream = "downstream") -> None:
        """Holds back the closing of a connection."""
        self._add("slow_close", stream, delay=milliseconds)

    def heal(self) -> None:
        """Removes all toxics and enables the link."""
        for toxic in self._server.call("GET", f"/proxies/{self.name}/toxics"):
            self._server.call("DELETE", f"/proxies/{self.name}/toxics/{toxic['name']}")
        self.enable()

    def disable(self) -> None:
        """Closes all connections and the port itself: connecting is refused from now on."""
        self._server.call("POST", f"/proxies/{self.name}", {"enabled": False})

    def enable(self) -> None:
        """Opens the port again."""
        self._server.call("POST", f"/proxies/{self.name}", {"enabled": True})

    def cut(self) -> None:
        """Closes all connections that are open; new ones go through."""
        self.disable()
        self.enable()

    def remove(self) -> None:
        """Takes the link down for good."""
        self._server.call("DELETE", f"/proxies/{self.name}")

    def _add(self, kind: str, stream: Stream, **attributes: int) -> None:
        path = f"/proxies/{self.name}/toxics"
        name = f"{kind}_{stream}"
        toxic = {"name": name, "type": kind, "stream": stream, "attributes": attributes}
        if name in [known["name"] for known in self._server.call("GET", path)]:
            self._server.call("DELETE", f"{path}/{name}")
        self._server.call("POST", path, toxic)


class Toxiproxy:
    """The server process, on ports of its own."""

    def __init__(self) -> None:
        self._log = Path(tempfile.mkdtemp(prefix="toxiproxy-")) / "log"
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._api_port = 0

    @property
    def api(self) -> str:
        """The URL of its API."""
        return f"http://127.0.0.1:{self._api_port}"

    def start(self) -> None:
        """Starts the server and returns when its API answers."""
        program = parts.toxiproxy()
        for _ in range(5):
            self._api_port = free_port()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [program, "-host", "127.0.0.1", "-port", str(self._api_port)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            wait_for(lambda: not self._running() or self._answers(), what="Toxiproxy answers")
            if self._running():
                return
        raise AssertionError(f"Toxiproxy doesn't start: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Ends the server and all its links."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
        self._log.unlink(missing_ok=True)
        self._log.parent.rmdir()

    def link(self, target_port: int, *, target_host: str = "127.0.0.1", round_trip: int = 0) -> Link:
        """A new link to a local port, on a free port of its own; `round_trip` in milliseconds."""
        self._count += 1
        name = f"link{self._count}"
        settings = {"name": name, "listen": "127.0.0.1:0", "upstream": f"{target_host}:{target_port}"}
        made = self.call("POST", "/proxies", settings)
        found = re.search(r":(\d+)$", made["listen"])
        assert found is not None
        link = Link(self, name, int(found[1]))
        # Pin the port: a link that is disabled and enabled again must come back where it was.
        self.call("POST", f"/proxies/{name}", {"listen": made["listen"], "upstream": settings["upstream"]})
        if round_trip:
            link.round_trip(round_trip)
        return link

    def reset(self) -> None:
        """Removes all links."""
        for name in self.call("GET", "/proxies"):
            self.call("DELETE", f"/proxies/{name}")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request to the API, JSON in and out; AssertionError with the server's words when it refuses."""
        request = urllib.request.Request(
            f"{self.api}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json", "User-Agent": "tests"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()}") from error
        return json.loads(content) if content else None

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _answers(self) -> bool:
        try:
            self.call("GET", "/version")
        except OSError:
            return False
        return True
