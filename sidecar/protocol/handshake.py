"""HI and HELLO, from both sides.

The server greets with `+HI {"v":2,"i":4735,"s":"3d2a"}` (`i` and `s` only when it wants a password), the client
answers `HELLO {...}`. The rules are those of Faktory's server: it demands the exact prefix `HELLO {`, reads the
object with Go's decoder (keys without regard to case, the last of equal ones wins, null changes nothing) and closes
the connection without a word when a field has the wrong type.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, NoReturn

import msgspec

from sidecar.protocol.names import folded
from sidecar.protocol.replies import ProtocolError

PROTOCOL_VERSION: Final = 2

#: Most hash iterations that a server may ask of us, about half a second of one core. Faktory asks for 4,000 to 8,095.
MAX_ITERATIONS: Final = 1_000_000

_GREETING_START = b"+HI {"
_HELLO_START = b"HELLO {"
_STRINGS = frozenset({"hostname", "wid", "pwdhash", "username"})
_INT64 = range(-(2**63), 2**63)
_RANGES = {"v": range(256), "pid": _INT64, "rss_kb": _INT64}


def password_hash(password: str, salt: str, iterations: int) -> str:
    """The proof of knowing `password`: SHA-256 of password and salt, in all `iterations` times.

    Args:
        iterations: less than 2 means one.

    Returns:
        hexadecimal digits, small letters.
    """
    digest = sha256((password + salt).encode()).digest()
    for _ in range(iterations - 1):
        digest = sha256(digest).digest()
    return digest.hex()


class _Greeting(msgspec.Struct):
    v: int
    s: str | None = None
    i: Annotated[int, msgspec.Meta(le=MAX_ITERATIONS)] | None = None


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says first.

    Args:
        version: of the protocol.
        salt: set when a password is wanted.
        iterations: of the password hash, for clients of version 2 and later; None where it says nothing of them.
    """

    version: int
    salt: str | None = None
    iterations: int | None = None

    def encode(self) -> bytes:
        """The line that a server sends. Without spaces: some clients split the line at them."""
        greeting: dict[str, object] = {"v": self.version}
        if self.salt is not None:
            greeting |= {"i": self.iterations if self.iterations is not None else 1, "s": self.salt}
        return b"+HI %b\r\n" % msgspec.json.encode(greeting)

    @classmethod
    def parse(cls, reply: bytes) -> Greeting:
        """Read a server's first reply, with or without its CRLF.

        Raises:
            ProtocolError: it is no greeting, or asks for more than `MAX_ITERATIONS`.
        """
        if not reply.startswith(_GREETING_START):
            raise ProtocolError(f"expected a Faktory greeting, got {reply[:60]!r}")
        try:
            said = msgspec.json.decode(reply[4:], type=_Greeting)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"a Faktory greeting that can't be read: {error}") from error
        return cls(said.v, said.s, said.i)

    def rounds(self, version: int | None) -> int:
        """How often a client of `version` hashes its password: once before version 2 or without a version."""
        if version is None or version < PROTOCOL_VERSION or self.iterations is None:
            return 1
        return self.iterations


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says first.

    Args:
        fields: as Faktory takes them: its own fields under the names it knows them by, whatever their case was, null
            ones left out; all others as they were sent.
    """

    fields: dict[str, object]

    @classmethod
    def parse(cls, line: bytes) -> Hello:
        """Read a client's first line, with or without its terminator.

        Raises:
            ProtocolError: Faktory would close this connection without a reply.
        """
        if not line.startswith(_HELLO_START):
            raise ProtocolError(f"expected HELLO and an object, got {line[:60]!r}")
        try:
            members = json.loads(
                line[6:].decode(errors="replace"), object_pairs_hook=_Members, parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a HELLO that is no JSON: {error}") from error
        fields: dict[str, object] = {}
        for key, value in members:
            name = folded(key)
            if name not in _STRINGS and name not in _RANGES and name != "labels":
                fields[_text(key)] = _plain(value)
            elif value is not None:
                fields[name] = _typed(name, value)
        return cls(fields)

    @property
    def wid(self) -> str:
        """The worker's id; empty for a producer."""
        return str(self.fields.get("wid", ""))

    @property
    def version(self) -> int | None:
        """The version of the protocol; None when the client doesn't tell."""
        version = self.fields.get("v")
        return version if isinstance(version, int) else None

    @property
    def pwdhash(self) -> str:
        """The proof of knowing the password; empty when there is none."""
        return str(self.fields.get("pwdhash", ""))

    def accepts(self, password: str, greeting: Greeting) -> bool:
        """Whether the client proved that it knows `password`, to the server that sent `greeting`.

        Takes the same time however much of the proof is right. Without a salt in the greeting nothing is proven.
        """
        if greeting.salt is None:
            return False
        expected = password_hash(password, greeting.salt, greeting.rounds(self.version))
        return hmac.compare_digest(self.pwdhash.encode(), expected.encode())

    def for_upstream(self, greeting: Greeting, password: str | None, username: str | None) -> bytes:
        """The client's own HELLO for another server: all its fields, but the proof is made for that server.

        Args:
            greeting: of that server.
            password, username: for that server; without a username the client's own is kept.
        """
        fields = {key: value for key, value in self.fields.items() if key != "pwdhash"}
        fields |= _credentials(greeting, password, username, self.version)
        return _hello(fields)


def hello_line(
    *, greeting: Greeting, password: str | None, username: str | None, hostname: str, pid: int, labels: list[str]
) -> bytes:
    """The HELLO of a producer of our own.

    Args:
        greeting: of the server it is for.
        labels: shown by Faktory beside the connection.
    """
    fields: dict[str, object] = {"hostname": hostname, "pid": pid, "labels": labels, "v": PROTOCOL_VERSION}
    return _hello(fields | _credentials(greeting, password, username, PROTOCOL_VERSION))


def _credentials(
    greeting: Greeting, password: str | None, username: str | None, version: int | None
) -> dict[str, object]:
    credentials: dict[str, object] = {}
    if password is not None and greeting.salt is not None:
        credentials["pwdhash"] = password_hash(password, greeting.salt, greeting.rounds(version))
    if username is not None:
        credentials["username"] = username
    return credentials


def _hello(fields: dict[str, object]) -> bytes:
    return b"HELLO %b\r\n" % json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


class _Members(list[tuple[str, Any]]):
    """An object's members in order, repeated ones included; a type of its own tells it from an array."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _typed(name: str, value: Any) -> object:
    """The value of a field that Faktory knows, when it has the type that Faktory's decoder wants."""
    if name in _STRINGS and isinstance(value, str):
        return _text(value)
    if name == "labels" and type(value) is list and all(isinstance(label, str | None) for label in value):
        return [_text(label or "") for label in value]
    if name in _RANGES and type(value) is int and value in _RANGES[name]:
        return value
    raise ProtocolError(f"a HELLO with a {name} of a wrong type")


def _text(text: str) -> str:
    """Lone surrogates replaced, as Go does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(value: Any) -> object:
    """A value of a field that Faktory doesn't know, as plain JSON data."""
    if isinstance(value, _Members):
        return {_text(key): _plain(inner) for key, inner in value}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None
    return value
