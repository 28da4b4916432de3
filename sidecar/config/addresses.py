"""Whether two addresses are the same place: the sidecar must not be its own upstream, nor want a port twice."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.config.values import LOOPBACKS, Bind, IPAddress, UpstreamAddress, literal_address

RESOLVE_SECONDS: Final = 0.3  # a dead name server must not hold up the start

Resolve = Callable[[str], Sequence[str]]


def resolve_quickly(host: str) -> list[str]:
    """The addresses of a name, as far as they are known within `RESOLVE_SECONDS`."""
    found: list[str] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # the link will say that there is no such host, and try again
        found.extend(str(answer[4][0]) for answer in answers)

    asking = threading.Thread(target=ask, daemon=True, name="resolve upstream")
    asking.start()
    asking.join(RESOLVE_SECONDS)
    return list(found)


def same_endpoint(bind: Bind, upstream: UpstreamAddress, resolve: Resolve) -> bool:
    """Whether connecting to `upstream` would reach what listens on `bind`."""
    if bind.port != upstream.port:
        return False
    if bind.host == upstream.host:
        return True
    theirs = _addresses(upstream.host, resolve)
    if bind.is_wildcard:
        return any(_is_of_this_machine(address) for address in theirs)
    return bool(theirs & _addresses(bind.host, resolve))


def conflicts(wanted: Sequence[tuple[str, Sequence[Bind]]]) -> Iterator[tuple[str, str, Bind]]:
    """The settings of which two want the same port of the same address; different names count as different."""
    for (first, ours), (second, theirs) in itertools.combinations(wanted, 2):
        for bind, other in itertools.product(ours, theirs):
            if bind.port and bind.port == other.port and _overlap(bind, other):
                yield first, second, other


def _overlap(one: Bind, other: Bind) -> bool:
    return one.is_wildcard or other.is_wildcard or bool(set(one.hosts) & set(other.hosts))


def _addresses(host: str, resolve: Resolve) -> set[IPAddress]:
    address = literal_address(host)
    if address is not None:
        return set(LOOPBACKS) if address.is_unspecified else {address}  # connecting to 0.0.0.0 reaches this machine
    if host == "localhost" or host.endswith(".localhost"):
        return set(LOOPBACKS)
    return {found for text in resolve(host) if (found := literal_address(text)) is not None}


def _is_of_this_machine(address: IPAddress) -> bool:
    """Whether the address is one of this machine's own: only then can a socket be bound to it."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if isinstance(address, ipaddress.IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
