"""One connection to upstream: TCP or TLS, socket options, handshake.

Every failure is a `DialError` that names the phase it happened in, so that the operator sees at once whether a name, a
port, a certificate or a password is wrong.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from sidecar.config import UpstreamAddress, upstream_context
from sidecar.logs import defect, described
from sidecar.protocol.handshake import Greeting, hello_line
from sidecar.protocol.replies import OK, ProtocolError, ReplyReader, error_text

CONNECT_TIMEOUT = 5.0
"""Seconds for name look-up, TCP and TLS: longer than any WAN needs, shorter than an operator's patience."""
HANDSHAKE_TIMEOUT = 5.0
"""Seconds for HI, HELLO and its reply. Faktory itself allows 2 s for its half."""
GREET_WITHIN = 1.0
"""Seconds that a connection may wait with its HELLO: Faktory ends one that hasn't greeted after 2."""
USER_TIMEOUT = 15.0
"""Seconds that sent bytes may stay unacknowledged before the kernel gives a connection up (TCP_USER_TIMEOUT)."""
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds idle, seconds between probes, probes: below the idle limit of every common load balancer (60 s and up)."""
LABEL = "faktory-sidecar"
RECEIVE_BYTES = 64 * 1024
"""Asked of a socket at once: from 128 KiB on the C library maps memory for each call, which costs 12 us."""

HelloFor = Callable[[Greeting], bytes]
"""Makes the HELLO line for a greeting: our own one, or a consumer's with the password hash recomputed."""


class DialError(Exception):
    """A connection to upstream could not be made.

    Args:
        phase: `connect`, `tls`, `handshake` or `password`.
        detail: one line for a person.
    """

    def __init__(self, phase: str, detail: str) -> None:
        super().__init__(detail)
        self.phase = phase
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection after its handshake; `early` is what upstream sent behind its `+OK`."""

    stream: trio.abc.Stream
    greeting: Greeting
    replies: ReplyReader
    early: list[bytes] = field(default_factory=list)


class Dialer:
    """Makes connections to one upstream. The TLS context is made once, so a wrong file stops the start.

    Args:
        address: where upstream is.

    Raises:
        ValueError: the CA, certificate or key file can't be used.
    """

    def __init__(self, address: UpstreamAddress) -> None:
        self.address = address
        self._tls = upstream_context(address) if address.tls else None
        self._hashing = trio.Lock()  # a hash takes some 2 ms: one in each turn of the event loop holds up nobody

    @property
    def password(self) -> str | None:
        """The password for upstream, if one is set."""
        return self.address.password.reveal() if self.address.password is not None else None

    def own_hello(self, greeting: Greeting) -> bytes:
        """The HELLO of our own connections: a producer's, with a label by which operators find us."""
        return hello_line(
            greeting=greeting,
            password=self.password,
            username=self.address.username,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            labels=[LABEL],
        )

    async def dial(self, hello: HelloFor | None = None, *, turn: trio.Event | None = None) -> Connected:
        """Connect and shake hands.

        Args:
            hello: makes the line to greet with; our own one by default.
            turn: the greeting doesn't leave before this is set. When that takes too long for Faktory's patience, the
                connection is made anew by then: nothing was said on it.

        Raises:
            DialError: with the phase that failed; nothing else, whatever happens.
        """
        try:
            while True:
                connected = await self._dial(hello or self.own_hello, turn)
                if connected is not None:
                    return connected
                if turn is not None:
                    await turn.wait()
        except DialError:
            raise
        except Exception as error:
            defect("dial", error, "it is tried again")
            raise DialError("connect", f"a defect, {described(error)}") from error

    async def _dial(self, hello: HelloFor, turn: trio.Event | None) -> Connected | None:
        """One connection; None when it had to wait for too long with its greeting."""
        stream = await self._connect()
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                connected = await self._shake_hands(stream, hello, turn)
        except trio.TooSlowError:
            await trio.aclose_forcefully(stream)
            raise DialError("handshake", f"no greeting within {HANDSHAKE_TIMEOUT:.0f} s: is this a Faktory?") from None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if connected is None:
            await trio.aclose_forcefully(stream)
        return connected

    async def _shake_hands(self, stream: trio.abc.Stream, hello: HelloFor, turn: trio.Event | None) -> Connected | None:
        reader = ReplyReader()
        try:
            early: list[bytes] = []
            greeting = Greeting.parse(await _next_reply(stream, reader, early))
            line = b""
            with trio.move_on_after(GREET_WITHIN) as waiting:
                async with self._hashing:
                    line = hello(greeting)
                if turn is not None:
                    await turn.wait()
            if waiting.cancelled_caught:
                return None
            await stream.send_all(line)
            reply = await _next_reply(stream, reader, early)
        except (trio.BrokenResourceError, OSError) as error:
            raise DialError("handshake", f"connection lost in the handshake: {_reason(error)}") from error
        except ProtocolError as error:
            raise DialError("handshake", f"this is no Faktory: {error}") from error
        if reply != OK:
            text = error_text(reply) or repr(reply[:80])
            raise DialError("password" if "password" in text.lower() else "handshake", f"upstream said: {text}")
        return Connected(stream, greeting, reader, early)

    async def _connect(self) -> trio.abc.Stream:
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                tcp = await trio.open_tcp_stream(self.address.host, self.address.port)
                _tune(tcp)
                if self._tls is None:
                    return tcp
                return await self._start_tls(tcp, self._tls)
        except trio.TooSlowError:
            raise DialError("connect", f"no connection within {CONNECT_TIMEOUT:.0f} s") from None
        except OSError as error:
            raise DialError("connect", _reason(error)) from error
        except (RuntimeError, MemoryError) as error:  # by `threading`, which has no type of its own for it
            if isinstance(error, RuntimeError) and "start new thread" not in str(error):
                raise
            lacking = "no thread can be started for the name's look-up (limit of processes or of memory)"
            raise DialError("connect", lacking) from error
        except UnicodeError as error:
            raise DialError("connect", f"name not found ({self.address.host} can't be a host's name)") from error

    async def _start_tls(self, tcp: trio.SocketStream, context: ssl.SSLContext) -> trio.abc.Stream:
        stream = trio.SSLStream(tcp, context, server_hostname=self.address.host)
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            await trio.aclose_forcefully(stream)
            raise DialError("tls", _tls_reason(error)) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


def _tune(tcp: trio.SocketStream) -> None:
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT * 1000))


async def _next_reply(stream: trio.abc.Stream, reader: ReplyReader, early: list[bytes]) -> bytes:
    while not early:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise ProtocolError("it closed the connection in the handshake")
        early.extend(reader.feed(bytes(data)))
    return early.pop(0)


def _reason(error: BaseException) -> str:
    """The innermost cause's words, without Python's class names where the system has a sentence."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if isinstance(error, socket.gaierror):
        return f"name not found ({error.strerror})"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()  # trio's own text repeats the address
    return str(error) or type(error).__name__


def _tls_reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate refused: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}"
    return f"TLS failed: {_reason(cause)}"
