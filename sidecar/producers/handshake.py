"""The first words with a local client: who it is, and whether it speaks the protocol at all."""

from __future__ import annotations

import secrets

import trio

from sidecar.errors import Refusal
from sidecar.logs import FloodLog
from sidecar.producers.channel import Channel
from sidecar.protocol.handshake import Greeting, Hello
from sidecar.protocol.lines import LineReader, LineTooLong
from sidecar.protocol.replies import ProtocolError

HANDSHAKE_WITHIN = 2.0
"""Seconds for a client's HELLO, as Faktory has it."""
HASH_ROUNDS = 1_000
"""Password hash iterations asked of local clients: 0.3 ms of Python a connection. Faktory asks for 4,000 to 8,095."""

MAX_HELLO = 16 * 1024
"""Bytes of a client's first line: it is read and decoded before the client has shown a password."""

_HTTP_METHODS = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH"})
_TLS = b"\x16\x03"


class Handshake:
    """One handshake; its success is not said here.

    Args:
        lines: of the connection; what came behind the HELLO stays there and in `early`.
        password: demanded, unless None.
        peer: the client's address, for the log.

    Attributes:
        early: complete lines that came with the HELLO.
        arrived: when they came (trio's clock).
    """

    def __init__(self, channel: Channel, lines: LineReader, password: str | None, floods: FloodLog, peer: str) -> None:
        self._channel = channel
        self._lines = lines
        self._password = password
        self._floods = floods
        self._peer = peer
        self.early: list[bytes] = []
        self.arrived = trio.current_time()

    async def run(self) -> Hello | None:
        """Greet and check the client; None when it must not go on, which was said where that helps."""
        with trio.move_on_after(HANDSHAKE_WITHIN):
            return await self._shake_hands()
        return None

    async def _shake_hands(self) -> Hello | None:
        greeting = Greeting(2)
        if self._password is not None:
            greeting = Greeting(2, salt=secrets.token_hex(8), iterations=HASH_ROUNDS)
        self._channel.write(greeting.encode())
        line = await self._first_line()
        if line is None:
            return None
        try:
            hello = Hello.parse(line)
        except ProtocolError as error:
            self._report_stranger(line, str(error))
            return None
        if self._password is not None and not hello.accepts(self._password, greeting):
            self._channel.write(Refusal("Invalid password").line())
            self._warn("wrong_password", "A local client sent a wrong password", self._host)
            return None
        return hello

    async def _first_line(self) -> bytes | None:
        """The client's first line; None when it left, or didn't come to an end."""
        while not self.early:
            data = await self._channel.receive()
            if not data:
                return None
            self.arrived = trio.current_time()
            if data.startswith(_TLS) and not self._lines.pending:
                self._report_stranger(data[:3], "")
                return None
            try:
                self.early = self._lines.feed(data)
            except LineTooLong:
                return None
            if (len(self.early[0]) if self.early else self._lines.pending) > MAX_HELLO:
                self._report_stranger(b"", f"longer than {MAX_HELLO:,} bytes")
                return None
        return self.early.pop(0)

    @property
    def _host(self) -> str:
        return self._peer.rpartition(":")[0]

    def _report_stranger(self, line: bytes, why: str) -> None:
        """One clear record for a client that speaks something else."""
        if line.startswith(_TLS):
            kind, what = (
                "TLS",
                "A client speaks TLS, this endpoint doesn't: use tcp:// in its FAKTORY_URL, or SIDECAR_LISTEN_TLS_CERT",
            )
        elif line.split(b" ", 1)[0] in _HTTP_METHODS:
            kind, what = "HTTP", "A client speaks HTTP, this is the Faktory endpoint: HTTP is at SIDECAR_HTTP_LISTEN"
        else:
            kind, what = "", f"A client's greeting is not understood: {why}"
        self._warn("stranger", what, f"{kind} {self._host}")

    def _warn(self, event: str, message: str, key: str) -> None:
        self._floods.warning(trio.current_time(), event, message=message, key=key, peer=self._peer)
