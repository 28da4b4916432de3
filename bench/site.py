"""What stands while rows are measured: a Faktory, links to it, a sidecar of each mode behind each link."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from bench.children import BenchError, Child, Pool, Program, python
from bench.clients import Foreign
from bench.faktory import LocalFaktory
from bench.links import links
from bench.orders import Client
from bench.rows import Way
from bench.running import RunningSidecar
from bench.usage import family
from bench.wire import Observer, round_trip
from sidecar.config.parsing import upstream as parse_url

MODES: Final[Mapping[Way, Mapping[str, str]]] = {
    Way.DISK: {},  # the default
    Way.UPSTREAM: {"SIDECAR_ACK": "upstream"},
    Way.MEMORY: {"SIDECAR_ACK": "memory"},
    Way.LEGACY: {"BATCH_AUTO_ENABLED": "false"},
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the jobs of a row go.

    Args:
        url, http_url: what producers use; "" where there is none.
        pid: of the sidecar, 0 where none is measured.
        observer: looks where the jobs arrive; None where they don't.
    """

    url: str = ""
    http_url: str = ""
    pid: int = 0
    observer: Observer | None = None


class Site:
    """All of it; started when it is first needed.

    Args:
        directory: on the disk that is measured; removed by the caller.
        upstream: URL of a Faktory of somebody's own instead of ours, "" for ours.
    """

    def __init__(self, directory: Path, upstream: str = "") -> None:
        self._stack = ExitStack()
        self.directory = directory
        self.queue = f"bench-{secrets.token_hex(4)}"
        self.pool = Pool(directory)
        self._stack.callback(self.pool.close)
        self.local = LocalFaktory(directory)
        self._stack.callback(self.local.close)
        self.links = links(directory)
        self._stack.callback(self.links.close)
        self.far_url = upstream or self.local.url
        self._own = not upstream
        self._near: Observer | None = None
        self._far: Observer | None = None
        self._far_ports: dict[float, int] = {}
        self._proxies: dict[float, int] = {}
        self._sidecars: dict[tuple[Way, float], RunningSidecar] = {}
        self._small: dict[Way, tuple[Child, int]] = {}
        self._foreign = Foreign(directory)
        self._stack.callback(self._foreign.close)

    def close(self) -> None:
        """Ends everything, and empties the queue where it isn't ours."""
        try:
            if not self._own:
                self.observer(local=False).empty()
        finally:
            self.end_sidecars()
            for child, _ in self._small.values():
                child.stop()
            self._stack.close()

    @property
    def name(self) -> str:
        """Of the Faktory that is measured, with its version."""
        name = self.local.name if self._own else f"Faktory at {parse_url(self.far_url).display}"
        return f"{name} {self.observer(local=False).version()}"

    def observer(self, *, local: bool) -> Observer:
        """What looks into one of the two Faktories; they are the same one unless an upstream was given."""
        if local or self._own:
            if self._near is None:
                self._near = Observer(self.local.url, self.queue)
            return self._near
        if self._far is None:
            self._far = Observer(self.far_url, self.queue)
        return self._far

    def far(self, rtt: float) -> str:
        """URL of the Faktory behind a WAN."""
        if not rtt:
            return self.far_url
        if rtt not in self._far_ports:
            address = parse_url(self.far_url)
            self._far_ports[rtt] = self.links.open(address.host, address.port, rtt)
        return moved(self.far_url, self._far_ports[rtt])

    def round_trip(self, rtt: float) -> float:
        """The real round trip in seconds of the link that was asked to have `rtt`."""
        return round_trip(self.far(rtt))

    def target(self, way: Way, rtt: float) -> Target:
        """Where rows of that way go at that round trip."""
        if way is Way.NOWHERE:
            return Target()
        if way is Way.LOCAL:
            return Target(self.local.url, observer=self.observer(local=True))
        if way in (Way.BARE, Way.CONSTANT):
            port = self._small_server(way)
            return Target(f"tcp://127.0.0.1:{port}", f"http://127.0.0.1:{port}")
        observer = self.observer(local=False)
        if way is Way.DIRECT:
            return Target(self.far(rtt), observer=observer)
        if way is Way.PROXY:
            return Target(self._proxied(rtt), observer=observer)
        running = self.sidecar(way, rtt)
        return Target(running.url, running.http_url, running.pid, observer)

    def sidecar(self, way: Way, rtt: float) -> RunningSidecar:
        """The sidecar of a mode behind a link."""
        running = self._sidecars.get((way, rtt))
        if running is not None and not running.running:
            self._sidecars.pop((way, rtt))
            raise BenchError(f"the sidecar in {way} mode has ended")
        if running is None:
            running = self.start_sidecar(way.value, self.far(rtt), MODES[way])
            self._sidecars[way, rtt] = running
        return running

    def start_sidecar(
        self, name: str, upstream: str, settings: Mapping[str, str], *, link: bool = True, tree: Path | None = None
    ) -> RunningSidecar:
        """A sidecar that the caller ends; of this checkout, or of another one's `tree`."""
        directory = self.directory / f"{name}-{secrets.token_hex(3)}"
        return RunningSidecar(f"the sidecar ({name})", upstream, directory, settings, link=link, tree=tree)

    def end_sidecars(self) -> None:
        """Ends the sidecars of `sidecar`."""
        for running in self._sidecars.values():
            running.close()
        self._sidecars.clear()

    def start_over(self) -> None:
        """After a row that failed: load programs and sidecars may be anywhere."""
        self.pool.replace()
        self._foreign.close()
        self.end_sidecars()

    def programs(self, client: Client, count: int) -> list[Program]:
        """So many load programs that use a client."""
        return [self._foreign.program(client)] if client in ("go", "node") else self.pool.take(count)

    def missing(self, client: Client) -> str:
        """Why a client's programs can't be had, "" when they can."""
        return self._foreign.missing(client)

    def faktory_pids(self) -> list[int]:
        """The processes of our Faktory."""
        return family(self.local.pid)

    def link_pids(self) -> list[int]:
        """The processes of the links."""
        return self.links.pids()

    def _proxied(self, rtt: float) -> str:
        if rtt not in self._proxies:
            address = parse_url(self.far(rtt))
            self._proxies[rtt] = self.links.open(address.host, address.port, 0.0)
        return moved(self.far_url, self._proxies[rtt])

    def _small_server(self, way: Way) -> int:
        if way not in self._small:
            command = ("bare", str(self.directory)) if way is Way.BARE else ("http",)
            errors = self.directory / f"{command[0]}.stderr"
            child = Child(f"the {way} server", python("bench.servers", *command), errors)
            self._small[way] = child, int(child.read_line())
        return self._small[way][1]


def moved(url: str, port: int) -> str:
    """The same server, reached through a port of this machine."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}"))
