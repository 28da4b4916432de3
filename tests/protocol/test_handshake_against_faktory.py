"""Every HELLO of the examples, told to the real Faktory: it closes on those we refuse, and takes our proofs."""

from __future__ import annotations

import pytest

from sidecar.protocol.handshake import Greeting, Hello, hello_line
from sidecar.protocol.replies import OK, ProtocolError
from tests.conftest import FaktoryFactory
from tests.protocol.test_handshake import CLIENTS, test_what_faktory_closes_on, test_who_is_a_consumer
from tests.real.faktory_server import RealFaktory

pytestmark = pytest.mark.real


def examples() -> list[bytes]:
    """All HELLO lines of the other tests."""
    closed_on = [mark.args[1] for mark in test_what_faktory_closes_on.pytestmark]  # type: ignore[attr-defined]
    consumers = [line for mark in test_who_is_a_consumer.pytestmark for line, _ in mark.args[1]]  # type: ignore[attr-defined]
    lines = [line for line, _ in CLIENTS] + [line for lines in closed_on for line in lines] + consumers
    return [line for line in lines if line]


def test_the_same_hellos_are_taken(faktory: RealFaktory) -> None:
    lines = examples()
    assert len(lines) > 50
    answers = {line: answer(faktory, line) for line in lines}
    assert answers == {line: OK if is_hello(line) else b"" for line in lines}


@pytest.mark.parametrize(
    "line", [b'HELLO {"WID":"fold"}', b'HELLO {"wid":"","w\\u0069d":"fold"}', b'HELLO {"wid":"fold"}']
)
def test_a_consumer_is_a_consumer_for_both(faktory: RealFaktory, line: bytes) -> None:
    assert Hello.parse(line).wid == "fold"
    with faktory.client(greet=False) as client:
        client.raw_reply()
        assert client.raw_call(line) == OK
        assert client.beat("fold") == "OK"


@pytest.mark.parametrize("version", [b"", b',"v":1', b',"v":2'])
def test_the_proof_is_taken(faktory_factory: FaktoryFactory, version: bytes) -> None:
    server = faktory_factory(password="sécret")
    for password, expected in (("sécret", OK), ("other", b"-ERR Invalid password\r\n")):
        with server.client(greet=False) as client:
            greeting = Greeting.parse(client.raw_reply())
            hello = Hello.parse(b'HELLO {"wid":"w1","pwdhash":"local","PWDHASH":"local"' + version + b"}")
            assert client.raw_call(hello.for_upstream(greeting, password, "someone")) == expected
    with server.client(greet=False) as client:
        greeting = Greeting.parse(client.raw_reply())
        own = hello_line(greeting=greeting, password="sécret", username=None, hostname="h", pid=1, labels=["l"])
        assert client.raw_call(own) == OK


def answer(faktory: RealFaktory, line: bytes) -> bytes:
    """What Faktory says to a HELLO; nothing when it closes."""
    with faktory.client(greet=False) as client:
        client.raw_reply()
        try:
            return client.raw_call(line)
        except ConnectionResetError:
            return b""


def is_hello(line: bytes) -> bool:
    try:
        Hello.parse(line)
    except ProtocolError:
        return False
    return True
