"""The values that settings have: addresses, secrets, modes. Immutable, and safe to print."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path


class Ack(enum.StrEnum):
    """Where a job is by the time of its `+OK`."""

    DISK = "disk"
    UPSTREAM = "upstream"
    MEMORY = "memory"


class LogLevel(enum.StrEnum):
    """The least severe records that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """How records are written; `auto` is `console` on a terminal, else `json`."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Secret:
    """A text that shows itself only when asked by name: `repr`, `str` and format strings give `***`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself; never for a log, a message or a page."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACKS: tuple[IPAddress, ...] = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


def host_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def literal_address(host: str) -> IPAddress | None:
    """The IP address that `host` spells (an IPv4 one mapped into IPv6 as IPv4), None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@dataclass(frozen=True, slots=True)
class Bind:
    """Something to listen on.

    Args:
        host: an IP address or a name; `localhost` means both loopbacks.
        port: 0-65,535; 0 lets the system choose.
    """

    host: str
    port: int

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts to bind, one socket each; `::1` behind `127.0.0.1` may be skipped where it is absent."""
        return tuple(str(each) for each in LOOPBACKS) if self.host == "localhost" else (self.host,)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` counts as reachable."""
        address = literal_address(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Whether it listens on every address of the machine."""
        address = literal_address(self.host)
        return address is not None and address.is_unspecified

    def __str__(self) -> str:
        return host_port(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamAddress:
    """How to reach and authenticate at the real Faktory.

    Args:
        host: name or IP address, without brackets; with TLS also the name that the certificate must have.
        port: 1-65,535.
        cafile: a private CA, PEM; None for the system's.
        certfile, keyfile: the client certificate and its key, PEM.
    """

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: Secret | None = None
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None

    @property
    def identity(self) -> str:
        """The server itself, without credentials: `tcp://host:port`."""
        return f"{self._scheme}://{host_port(self.host, self.port)}"

    @property
    def display(self) -> str:
        """The URL for people and logs, its password as `***`."""
        password = ":***" if self.password is not None else ""
        credentials = f"{self.username or ''}{password}"
        at = "@" if credentials else ""
        return f"{self._scheme}://{credentials}{at}{host_port(self.host, self.port)}"

    @property
    def _scheme(self) -> str:
        return "tcp+tls" if self.tls else "tcp"

    def __str__(self) -> str:
        return self.display


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can decide, checked. Sizes in bytes, durations in seconds.

    Args:
        http_listen, ops_listen: empty when off.
        auto_batch: false is the legacy mode, in which `ack` has no meaning.
        batch_max_delay: the linger.
        adopt_journal: take over a journal that was filled for another upstream.
    """

    upstream: UpstreamAddress
    listen: tuple[Bind, ...]
    listen_password: Secret | None
    listen_tls_cert: Path | None
    listen_tls_key: Path | None
    http_listen: tuple[Bind, ...]
    http_token: Secret | None
    ops_listen: tuple[Bind, ...]
    ack: Ack
    journal_dir: Path
    journal_max_bytes: int
    memory_max_bytes: int
    pipeline_depth: int
    drain_timeout: float
    log_level: LogLevel
    log_format: LogFormat
    batch_max_size: int
    batch_max_delay: float
    batch_max_bytes: int
    auto_batch: bool
    adopt_journal: bool = field(default=False)

    @property
    def mode(self) -> Ack:
        """What `+OK` means: in the legacy mode, Faktory's own."""
        return self.ack if self.auto_batch else Ack.UPSTREAM
