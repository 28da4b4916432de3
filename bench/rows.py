"""The rows: every way to push jobs that is compared, by name."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.orders import UNBOUNDED, Client, Task


class Way(enum.StrEnum):
    """What the jobs are given to."""

    DIRECT = "direct"  # Faktory behind the WAN
    PROXY = "plain proxy"  # a TCP proxy here, Faktory behind the WAN
    LOCAL = "local Faktory"  # no WAN
    BARE = "bare loop"  # receive, append, sync, send: no Faktory at all
    CONSTANT = "constant"  # the same HTTP server with a constant answer
    DISK = "disk"  # the sidecar, in one of its modes
    UPSTREAM = "upstream"
    MEMORY = "memory"
    LEGACY = "legacy"
    NOWHERE = "nowhere"

    @property
    def is_sidecar(self) -> bool:
        """Whether a sidecar carries the jobs."""
        return self in SIDECARS

    @property
    def is_far(self) -> bool:
        """Whether a WAN is in the way."""
        return self.is_sidecar or self in (Way.DIRECT, Way.PROXY)

    @property
    def counts(self) -> bool:
        """Whether jobs arrive in a Faktory."""
        return self not in (Way.BARE, Way.CONSTANT, Way.NOWHERE)


SIDECARS: Final = (Way.DISK, Way.UPSTREAM, Way.MEMORY, Way.LEGACY)


class Kind(enum.StrEnum):
    """Which figure of a row counts."""

    PRODUCERS = "producers"  # acknowledged jobs a second
    BULK = "bulk"  # delivered jobs a second
    REPLIES = "replies"  # time of a reply under a steady offer
    IDLE = "idle"  # what it uses while nothing happens


@dataclass(frozen=True, slots=True)
class Row:
    """One way to push jobs.

    Args:
        name: how it is selected and where others refer to it.
        label: for people.
        offered: jobs a second of all producers together, 0 for as many as possible.
        batch, window: as an order has them.
        jobs: of each producer at most; 0: as many as time allows.
        everywhere: it is measured at every round trip, else only at the main one.
        quick: it is part of `--quick`.
    """

    name: str
    label: str
    kind: Kind
    way: Way
    task: Task = "push"
    client: Client = "pyfaktory"
    producers: int = 1
    offered: float = 0.0
    batch: int = 1
    window: int = 1
    path: str = ""
    everywhere: bool = False
    quick: bool = False
    jobs: int = 0


def _producers(way: Way, count: int, *, everywhere: bool = False, quick: bool = False) -> Row:
    what = "1 producer" if count == 1 else f"{count} producers"
    name = f"{way.name.lower()}-{count}"
    return Row(name, what, Kind.PRODUCERS, way, producers=count, everywhere=everywhere, quick=quick)


def _client(way: Way, client: Client, count: int) -> Row:
    what = "1 producer" if count == 1 else f"{count} producers"
    label = f"{what}, {CLIENT_NAMES[client]}"
    return Row(f"{way.name.lower()}-{client}-{count}", label, Kind.PRODUCERS, way, client=client, producers=count)


def _bulk(
    name: str, label: str, way: Way, *, batch: int, window: int = 1, clients: int = 1, everywhere: bool = True
) -> Row:
    return Row(
        name,
        label,
        Kind.BULK,
        way,
        "bulk",
        "raw",
        producers=clients,
        batch=batch,
        window=window,
        everywhere=everywhere,
        quick=everywhere,
    )


def _http(way: Way, count: int) -> Row:
    what = "1 connection" if count == 1 else f"{count} connections"
    name = f"{way.name.lower()}-http-{count}"
    return Row(name, f"HTTP single jobs, {what}", Kind.PRODUCERS, way, "http", "raw", producers=count, path="/jobs")


def _http_batch(way: Way, name: str, label: str, *, everywhere: bool = False, jobs: int = 0) -> Row:
    return Row(
        name,
        label,
        Kind.BULK,
        way,
        "http",
        "raw",
        batch=1000,
        path="/jobs/batch",
        everywhere=everywhere,
        quick=everywhere,
        jobs=jobs,
    )


CLIENT_NAMES: Final[dict[Client, str]] = {
    "pyfaktory": "pyfaktory",
    "raw": "raw sockets",
    "go": "the Go client",
    "node": "the Node client",
}

ROWS: Final[tuple[Row, ...]] = (
    _producers(Way.DIRECT, 1, everywhere=True, quick=True),
    _producers(Way.DIRECT, 16),
    _producers(Way.DIRECT, 64),
    _producers(Way.PROXY, 1),
    _producers(Way.LOCAL, 1),
    _producers(Way.LOCAL, 16, quick=True),
    _producers(Way.BARE, 1, quick=True),
    _producers(Way.DISK, 1, everywhere=True, quick=True),
    _producers(Way.DISK, 4),
    _producers(Way.DISK, 16, quick=True),
    _producers(Way.DISK, 64),
    _producers(Way.UPSTREAM, 1),
    _producers(Way.UPSTREAM, 4),
    _producers(Way.UPSTREAM, 16),
    _producers(Way.UPSTREAM, 64),
    _producers(Way.MEMORY, 1, everywhere=True, quick=True),
    _producers(Way.MEMORY, 4),
    _producers(Way.MEMORY, 16, quick=True),
    _producers(Way.MEMORY, 64),
    *(_client(way, client, 1) for client in ("raw", "go", "node") for way in (Way.DIRECT, Way.LOCAL, Way.DISK)),
    *(_client(way, client, 16) for client in ("go", "node") for way in (Way.LOCAL, Way.DISK)),
    _http(Way.LEGACY, 1),
    _http(Way.DISK, 1),
    _http(Way.DISK, 32),
    _http(Way.CONSTANT, 32),
    _bulk("guide", "PUSHB of 100, one by one (guide)", Way.DIRECT, batch=100),
    _bulk("link", "PUSHB of 100, pipelined (link's limit)", Way.DIRECT, batch=100, window=UNBOUNDED),
    _bulk("disk-pushb", "PUSHB of 1,000", Way.DISK, batch=1000),
    _bulk("disk-pushb-4", "PUSHB of 1,000, 4 clients", Way.DISK, batch=1000, clients=4, everywhere=False),
    _bulk("upstream-pushb", "PUSHB of 1,000", Way.UPSTREAM, batch=1000, everywhere=False),
    _bulk("memory-pushb", "PUSHB of 1,000", Way.MEMORY, batch=1000, everywhere=False),
    _http_batch(Way.DISK, "disk-http-batch", "HTTP batches of 1,000", everywhere=True),
    _http_batch(Way.DISK, "disk-http-one", "HTTP, one batch of 1,000", jobs=1000),
    Row("sync", "append + fdatasync", Kind.REPLIES, Way.NOWHERE, "sync", "raw", quick=True),
    Row("paced", "16 producers, 1,000 jobs/s", Kind.REPLIES, Way.DISK, client="raw", producers=16, offered=1000.0),
    Row("idle", "idle", Kind.IDLE, Way.DISK),
)

BY_NAME: Final = {row.name: row for row in ROWS}


def selected(names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the table's order.

    Raises:
        KeyError: with the first name that is none.
    """
    for name in names:
        BY_NAME[name]
    return [row for row in ROWS if row.name in names]
