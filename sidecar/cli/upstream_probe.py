"""Looking at upstream without pushing anything: version, password, round trip, PUSHB."""

from __future__ import annotations

import ipaddress
import statistics
import time
from dataclasses import dataclass
from typing import Final

import msgspec
import trio

from sidecar.config import UpstreamAddress
from sidecar.config.values import literal_address
from sidecar.protocol.replies import ProtocolError, bulk_body, error_text
from sidecar.upstream.dial import RECEIVE_BYTES, Connected, Dialer, DialError
from sidecar.upstream.refusals import knows_pushb

ROUND_TRIPS: Final = 10
PROBE_TIMEOUT: Final = 20.0  # s for all round trips together
EMPTY_BATCH: Final = b"PUSHB []\r\n"  # pushes nothing, costs the server nothing, and shows whether it knows PUSHB
INFO: Final = b"INFO\r\n"


class ProbeError(Exception):
    """Upstream can't be used as the settings have it.

    Args:
        phase: `connect`, `tls`, `handshake`, `password` or `commands`.
        detail: what happened.
        hint: what to do about it.
    """

    def __init__(self, phase: str, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.phase, self.detail, self.hint = phase, detail, hint


@dataclass(frozen=True, slots=True)
class Upstream:
    """What was seen.

    Args:
        wants_password: it asked for one; ours was right.
        round_trip: median in seconds.
        beyond_private: its address is a public one.
    """

    version: str
    wants_password: bool
    pushb: bool
    round_trip: float
    beyond_private: bool


class _Server(msgspec.Struct):
    faktory_version: str = "unknown"


class _Info(msgspec.Struct):
    server: _Server


async def probe(address: UpstreamAddress) -> Upstream:
    """Connect once, ask, and leave.

    Raises:
        ProbeError: with what to do about it.
    """
    try:
        connected = await Dialer(address).dial()
    except DialError as error:
        raise ProbeError(error.phase, error.detail, _hint(address, error.phase, error.detail)) from error
    try:
        with trio.fail_after(PROBE_TIMEOUT):
            return await _ask(connected)
    except trio.TooSlowError as error:
        detail = f"no reply within {PROBE_TIMEOUT:.0f} s"
        raise ProbeError("commands", detail, "Faktory or its Redis hangs, or something between drops data") from error
    except (trio.BrokenResourceError, ProtocolError, msgspec.DecodeError) as error:
        raise ProbeError("commands", f"after the handshake: {error}", "see the log of Faktory") from error
    finally:
        await trio.aclose_forcefully(connected.stream)


async def _ask(connected: Connected) -> Upstream:
    times = []
    reply = b""
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        reply = await _exchange(connected, EMPTY_BATCH)
        times.append(time.perf_counter() - start)
    info = await _exchange(connected, INFO)
    if (trouble := error_text(info)) is not None:
        raise ProtocolError(f"INFO was refused: {trouble}")
    version = msgspec.json.decode(bulk_body(info) or b"{}", type=_Info).server.faktory_version
    return Upstream(
        version=version,
        wants_password=connected.greeting.salt is not None,
        pushb=error_text(reply) is None and knows_pushb(version) is not False,
        round_trip=statistics.median(times),
        beyond_private=_is_public(connected.stream),
    )


async def _exchange(connected: Connected, command: bytes) -> bytes:
    await connected.stream.send_all(command)
    while not connected.early:
        data = await connected.stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise ProtocolError("upstream closed the connection")
        connected.early.extend(connected.replies.feed(bytes(data)))
    return connected.early.pop(0)


def _is_public(stream: trio.abc.Stream) -> bool:
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(transport, trio.SocketStream)
    peer = literal_address(str(transport.socket.getpeername()[0]))
    return isinstance(peer, ipaddress.IPv4Address | ipaddress.IPv6Address) and peer.is_global


def _hint(address: UpstreamAddress, phase: str, detail: str) -> str:
    """What an operator can do about a failed connection."""
    words = detail.lower()
    match phase:
        case "password" if address.password is None:
            return "it wants a password: SIDECAR_UPSTREAM_PASSWORD, or tcp://:password@host in the URL"
        case "password":
            return "it has another password: SIDECAR_UPSTREAM_PASSWORD, or the one in the URL"
        case "tls" if "hostname" in words or "ip address" in words:
            return f"its certificate has another name than {address.host}: use that name in SIDECAR_UPSTREAM"
        case "tls" if "certificate" in words:
            return "a private CA goes into SIDECAR_UPSTREAM_TLS_CA"
        case "tls":
            return (
                "a Faktory without TLS is tcp://; one that wants a client certificate: SIDECAR_UPSTREAM_TLS_CERT, _KEY"
            )
        case "connect" if "refused" in words:
            return f"nothing listens there: is Faktory running, is port {address.port} right?"
        case "connect" if "name not found" in words:
            return f"no such host: is {address.host} right, and does this machine's name server know it?"
        case "connect":
            return "is it reachable from here (route, firewall, VPN)?"
        case _ if address.tls:
            return "is that port Faktory's own (7419), not its web page or a proxy?"
        case _:
            return "is that port Faktory's own (7419), not its web page? One with TLS is tcp+tls://"
