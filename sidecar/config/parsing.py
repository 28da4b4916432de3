"""Texts into values. Each parser raises `ValueError` with what is allowed; whoever calls names the setting."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote

from sidecar.config.values import Ack, Bind, LogFormat, LogLevel, Secret, UpstreamAddress, literal_address

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

DEFAULT_PORT: Final = 7419  # Faktory's own
UPSTREAM_ALLOWED: Final = "expected tcp://:password@host:7419 or tcp+tls://:password@host:7419"

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([kmgt]?)(i?)(b?)", re.IGNORECASE)
_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?"
_AUTHORITY: Final = re.compile(rf"(?P<host>{_HOST}|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\])(?::(?P<port>[0-9]{{1,5}}))?")
_UPSTREAM: Final = re.compile(r"(?P<scheme>tcp|tcp\+tls)://(?:(?P<user>.*)@)?(?P<authority>[^@/?#]*)/?", re.DOTALL)

T = TypeVar("T", Ack, LogLevel, LogFormat)


def boolean(text: str) -> bool:
    """`true` or `false`, also `1`/`0`, `yes`/`no`, `on`/`off`, in any case."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("expected true or false")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text) if _WHOLE.fullmatch(text := text.strip()) else -1
        if not least <= number <= most:
            raise ValueError(f"expected a whole number from {least:,} to {most:,}")
        return number

    return parse


def seconds(most: int) -> Callable[[str], float]:
    """A parser of seconds from 0 to `most`, fractions allowed."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number <= most:
            raise ValueError(f"expected seconds from 0 to {most:,}")
        return number

    return parse


def milliseconds(most: int) -> Callable[[str], float]:
    """A parser of whole milliseconds from 0 to `most`, into seconds."""
    number = whole(0, most)

    def parse(text: str) -> float:
        try:
            return number(text) / 1000
        except ValueError:
            raise ValueError(f"expected whole milliseconds from 0 to {most:,}") from None

    return parse


def size(least: int, most: int) -> Callable[[str], int]:
    """A parser of sizes from `least` to `most` bytes: `1073741824`, `512MiB`, `1Gi`, `64MB`, `1.5G`."""

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text.strip())
        number = -1
        if match is not None and (match[2] or not match[3]):
            step = 1024 if match[3] else 1000
            number = int(float(match[1]) * step ** " kmgt".index(match[2].lower() or " "))
        if not least <= number <= most:
            raise ValueError(
                f"expected a size from {size_text(least)} to {size_text(most)}, like 1073741824, 512MiB or 1Gi"
            )
        return number

    return parse


def size_text(count: int) -> str:
    """Bytes for people, in the largest binary unit that leaves at least 1: `1 GiB`, `1.5 MiB`, `300 B`."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{count} B"


def one_of(kind: type[T]) -> Callable[[str], T]:
    """A parser of the words of an enumeration, in any case."""
    words = [member.value for member in kind]

    def parse(text: str) -> T:
        try:
            return kind(text.strip().lower())
        except ValueError:
            raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}") from None

    return parse


def bind(text: str) -> Bind:
    """One `HOST:PORT`: `localhost:7419`, `0.0.0.0:7419`, `[::1]:7419`; port 0 lets the system choose."""
    match = _AUTHORITY.fullmatch(text.strip())
    if match is None or match["port"] is None or int(match["port"]) > 65_535:
        raise ValueError("expected HOST:PORT, like localhost:7419, 0.0.0.0:7419 or [::1]:7419")
    return Bind(_bare_host(match["host"]), int(match["port"]))


def binds(text: str) -> tuple[Bind, ...]:
    """A comma-separated list of `HOST:PORT`, at least one, repetitions removed."""
    return tuple(dict.fromkeys(bind(part) for part in text.split(",")))


def binds_or_off(text: str) -> tuple[Bind, ...]:
    """As `binds`, or `off` for none."""
    if text.strip().lower() in _FALSE:
        return ()
    try:
        return binds(text)
    except ValueError as error:
        raise ValueError(f"{error}, or off") from None


def secret(text: str) -> Secret:
    """A password or token: one line of text."""
    if not text or any(ord(character) < 32 for character in text):
        raise ValueError("expected one line of text, not empty")
    return Secret(text)


def readable_file(text: str) -> Path:
    """The absolute path of a file that can be read."""
    path = _absolute(text)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"expected a readable file: {error.strerror}") from None


def directory(text: str) -> Path:
    """The absolute path of a directory, which need not exist yet."""
    path = _absolute(text)
    if path.exists() and not path.is_dir():
        raise ValueError("expected a directory, this is a file")
    return path


def _absolute(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError("expected a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("expected a path: there is no home directory for ~") from None


def upstream(text: str) -> UpstreamAddress:
    """A Faktory URL. User and password are percent-decoded, as the clients do; the port is 7419 unless given."""
    match = _UPSTREAM.fullmatch(text.strip())
    authority = _AUTHORITY.fullmatch(match["authority"]) if match else None
    if match is None or authority is None:
        raise ValueError(UPSTREAM_ALLOWED)
    port = DEFAULT_PORT if authority["port"] is None else int(authority["port"])
    if not 0 < port < 65_536:
        raise ValueError("expected a port from 1 to 65,535")
    username, _, password = (unquote(part) for part in (match["user"] or "").partition(":"))
    return UpstreamAddress(
        host=_bare_host(authority["host"]),
        port=port,
        tls=match["scheme"] == "tcp+tls",
        username=username or None,
        password=secret(password) if password else None,
    )


def masked_url(text: str) -> str:
    """A wrong URL as it may be shown: what could be a password in it is `***`."""
    scheme, separator, rest = text.strip().rpartition("://")
    credentials, at, authority = rest.rpartition("@")
    address = _AUTHORITY.fullmatch(authority.rstrip("/"))
    known = re.fullmatch(r"[a-z+]{0,12}", scheme) is not None
    if not known or address is None or not (separator or address["port"]):
        return "***"
    return f"{scheme}{separator}{'***' if credentials else ''}{at}{authority}"


def _bare_host(text: str) -> str:
    host = text.strip("[]").lower()
    if text.startswith("[") and literal_address(host) is None:
        raise ValueError("expected an IPv6 address between the brackets, like [::1]:7419")
    return host
