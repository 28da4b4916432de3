"""What the start says: sentences from settings, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sidecar import __version__
from sidecar.config import Ack, Bind, Settings, size_text
from sidecar.config.values import literal_address


class Line(NamedTuple):
    """One record of the start.

    Args:
        level: `info` or `warning`.
    """

    event: str
    message: str
    level: str = "info"


def banner(
    settings: Settings, *, addresses: Sequence[str] = (), http_addresses: Sequence[str] = (), waiting: int = 0
) -> list[Line]:
    """The records of the start, in their order.

    Args:
        addresses: what was bound for the local Faktory endpoint, `127.0.0.1:7419`; needed for port 0.
        http_addresses: the same for HTTP.
        waiting: jobs that the journal held at the start.
    """
    listening = _shown(settings.listen, addresses)
    lines = [
        Line("starting", f"faktory-sidecar {__version__} -> {settings.upstream.display}"),
        Line("producers", f"Producers: FAKTORY_URL={_producers_url(settings, listening)}, nothing else changes"),
    ]
    if settings.http_listen:
        http = reachable(_shown(settings.http_listen, http_addresses))
        lines.append(Line("http", f"HTTP: http://{http} (jobs, status page, /docs, /metrics)"))
    return [*lines, _promise(settings, waiting), Line("batch_config", batch_config(settings))]


def batch_config(settings: Settings) -> str:
    """The guide's sentence about the batch settings."""
    auto = str(settings.auto_batch).lower()
    return (
        f"Batch config: max_size={settings.batch_max_size}, "
        f"max_delay={settings.batch_max_delay * 1000:.0f}ms, auto_batch={auto}"
    )


def _promise(settings: Settings, waiting: int) -> Line:
    """What `+OK` means, in the mode that is on."""
    if not settings.auto_batch:
        return Line(
            "acknowledgement",
            "+OK means: in Faktory, by its own word; BATCH_AUTO_ENABLED=false sends each job by itself "
            "and overrides SIDECAR_ACK",
        )
    match settings.ack:
        case Ack.DISK:
            bound = size_text(settings.journal_max_bytes)
            jobs = f"{waiting:,} {'job' if waiting == 1 else 'jobs'} waiting"
            return Line("acknowledgement", f"+OK means: fsynced in the journal ({jobs}, bound {bound})")
        case Ack.UPSTREAM:
            return Line("acknowledgement", "+OK means: in Faktory, by its own word")
        case Ack.MEMORY:
            bound = size_text(settings.memory_max_bytes)
            return Line(
                "acknowledgement",
                f"+OK means: held in memory only (up to {bound}); a crash, kill -9 or power cut loses those jobs. "
                "SIDECAR_ACK=disk or upstream does not",
                "warning",
            )


def _shown(binds: Sequence[Bind], addresses: Sequence[str]) -> str:
    """The first bind with the port that it really got."""
    first = binds[0]
    port = int(addresses[0].rpartition(":")[2]) if first.port == 0 and addresses else first.port
    return str(Bind(first.host, port))


def _producers_url(settings: Settings, address: str) -> str:
    scheme = "tcp+tls" if settings.listen_tls_cert is not None else "tcp"
    password = ":PASSWORD@" if settings.listen_password is not None else ""
    return f"{scheme}://{password}{reachable(address)}"


def reachable(address: str) -> str:
    """An address one can connect to: every address of the machine is also localhost."""
    host, _, port = address.rpartition(":")
    literal = literal_address(host.strip("[]"))
    return f"localhost:{port}" if literal is not None and literal.is_unspecified else address
