"""How client libraries of other languages speak, seen on the wire, for those whose runtime we don't bring."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tests.real.raw_client import RawClient


@dataclass(frozen=True, slots=True)
class Dialect:
    """One library's habits as a producer.

    Attributes:
        hello: the fields of its HELLO, the password's hash apart.
        end: how it ends lines.
        says_end: whether it sends END before it closes.
    """

    name: str
    hello: dict[str, Any]
    end: bytes = b"\r\n"
    says_end: bool = True

    def hello_line(self, greeting: dict[str, Any], password: str | None) -> bytes:
        """The HELLO that answers a greeting."""
        fields = dict(self.hello)
        if "s" in greeting:
            rounds = greeting["i"] if fields.get("v", 1) >= 2 else 1
            digest = ((password or "") + greeting["s"]).encode()
            for _ in range(rounds):
                digest = hashlib.sha256(digest).digest()
            fields["pwdhash"] = digest.hex()
        return b"HELLO " + json.dumps(fields).encode() + self.end

    def push_line(self, job: dict[str, Any]) -> bytes:
        """A PUSH."""
        return b"PUSH " + json.dumps(job, ensure_ascii=False).encode() + self.end

    def connect(self, port: int, password: str | None) -> RawClient:
        """A connection after its handshake."""
        client = RawClient(port, greet=False)
        client.send(self.hello_line(greeting(client), password))
        assert client.reply() == "OK"
        return client


def greeting(client: RawClient) -> dict[str, Any]:
    """Reads the server's HI."""
    hi = client.reply() or ""
    assert hi.startswith("HI ")
    assert " " not in hi[3:], "the Node clients split the greeting at spaces"
    fields: dict[str, Any] = json.loads(hi[3:])
    return fields


RUBY = Dialect(
    "ruby",
    {"username": None, "wid": "", "hostname": "box", "pid": 7, "labels": ["ruby-3.3"], "v": 2},
    end=b"\n",
)
RUST = Dialect("rust", {"v": 2})
OLD_PYTHON = Dialect("python-without-v", {"hostname": "box", "pid": 7, "labels": ["python"]}, says_end=False)
GO = Dialect("go", {"hostname": "", "wid": "", "pid": 0, "labels": [], "v": 2, "username": ""})

DIALECTS = (RUBY, RUST, OLD_PYTHON, GO)
