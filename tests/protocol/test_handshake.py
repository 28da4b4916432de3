"""HI and HELLO, from both sides, by the rules of Faktory's server."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.handshake import MAX_ITERATIONS, Greeting, Hello, hello_line, password_hash
from sidecar.protocol.replies import ProtocolError

OPEN = Greeting(2)
SALTED = Greeting(2, "3d2a", 4735)


def sent(line: bytes) -> dict[str, Any]:
    """The object of a HELLO line."""
    assert line.startswith(b"HELLO {")
    assert line.endswith(b"}\r\n")
    assert line.count(b"\n") == 1
    fields: dict[str, Any] = json.loads(line[6:])
    return fields


# The hash


def test_one_iteration_is_the_digest_of_password_and_salt() -> None:
    expected = sha256(b"foobar55104dc76695721d").hexdigest()
    assert [password_hash("foobar", "55104dc76695721d", n) for n in (-1, 0, 1)] == [expected] * 3


def test_more_iterations_hash_the_digest_itself() -> None:
    assert password_hash("p", "s", 3) == sha256(sha256(sha256(b"ps").digest()).digest()).hexdigest()


def test_the_example_of_the_protocol_text() -> None:
    digest = "6d877f8e5544b1f2598768f817413ab8a357afffa924dedae99eb91472d4ec30"
    assert password_hash("foobar", "55104dc76695721d", 1545) == digest


def test_a_password_is_hashed_as_utf8() -> None:
    assert password_hash("pä", "s", 1) == sha256("päs".encode()).hexdigest()


# HI


@pytest.mark.parametrize(
    ("greeting", "line"),
    [
        (OPEN, b'+HI {"v":2}\r\n'),
        (Greeting(2, "123456789abc", 1000), b'+HI {"v":2,"i":1000,"s":"123456789abc"}\r\n'),
        (Greeting(2, "salt"), b'+HI {"v":2,"i":1,"s":"salt"}\r\n'),
    ],
)
def test_a_greeting_as_sent(greeting: Greeting, line: bytes) -> None:
    assert greeting.encode() == line
    assert b" " not in line[4:]


@pytest.mark.parametrize(
    ("line", "greeting"),
    [
        (b'+HI {"v":2}\r\n', Greeting(2)),
        (b'+HI {"v":2}', Greeting(2)),
        (b'+HI {"v":2,"i":4735,"s":"3d2a"}\r\n', SALTED),
        (b'+HI {"s":"x","v":1}\r\n', Greeting(1, "x")),
        (b'+HI {"v": 3, "s": null, "i": null, "new": [1]}\r\n', Greeting(3)),
    ],
)
def test_a_greeting_as_read(line: bytes, greeting: Greeting) -> None:
    assert Greeting.parse(line) == greeting


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"",
            b"+OK\r\n",
            b"-ERR too many\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b'HI {"v":2}\r\n',
            b'+HI  {"v":2}\r\n',
        ),
        *(b"+HI {}\r\n", b"+HI {\r\n", b'+HI {"v":"2"}\r\n', b'+HI {"v":2}x\r\n', b'+HI {"v":2,"s":5,"i":1}\r\n'),
        *(b'+HI {"v":2,"s":"\xff"}\r\n', b'+HI {"v":' + b"[" * 100_000 + b"\r\n", b'+HI {"v":2,"s":"x","i":1.5}\r\n'),
        b'+HI {"v":2,"s":"x","i":%d}\r\n' % (MAX_ITERATIONS + 1),
    ],
)
def test_what_is_no_greeting(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Greeting.parse(line)


@given(st.integers(0, 9), st.none() | st.text(st.characters(codec="utf-8")), st.integers(1, 9999))
def test_a_greeting_survives_its_encoding(version: int, salt: str | None, iterations: int) -> None:
    greeting = Greeting(version, salt, iterations if salt is not None else None)
    assert Greeting.parse(greeting.encode()) == greeting


@pytest.mark.parametrize(("version", "rounds"), [(None, 1), (0, 1), (1, 1), (2, 4735), (3, 4735)])
def test_how_often_a_client_hashes(version: int | None, rounds: int) -> None:
    assert SALTED.rounds(version) == rounds
    assert OPEN.rounds(version) == 1


# HELLO, read

CLIENTS = [
    (
        b'HELLO {"hostname":"","wid":"","pid":0,"labels":[],"username":"","pwdhash":"","v":2}\r\n',
        {"hostname": "", "wid": "", "pid": 0, "labels": [], "username": "", "pwdhash": "", "v": 2},
    ),
    (b'HELLO {"v":2}\r\n', {"v": 2}),
    (b'HELLO {"hostname":"h","v":2}\r\n', {"hostname": "h", "v": 2}),
    (b'HELLO {"hostname":"h","labels":["a","b"],"v":2}\r\n', {"hostname": "h", "labels": ["a", "b"], "v": 2}),
    (b'HELLO {"v": 2}\r\n', {"v": 2}),
    (b'HELLO {"hostname": "h", "pid": 7}\r\n', {"hostname": "h", "pid": 7}),
    (b'HELLO {"username":null,"wid":"","v":2}\n', {"wid": "", "v": 2}),
    (b"HELLO {}", {}),
    (b"HELLO { } \t\r\n", {}),
]


@pytest.mark.parametrize(("line", "fields"), CLIENTS)
def test_the_greetings_of_real_clients(line: bytes, fields: dict[str, object]) -> None:
    hello = Hello.parse(line)
    assert hello.fields == fields
    assert hello.wid == ""
    assert hello.version == fields.get("v")
    assert hello.pwdhash == ""


def test_a_worker() -> None:
    hello = Hello.parse(b'HELLO {"wid":"4qpc2443vpvai","pid":2676,"labels":["golang"],"pwdhash":"1e44","v":2}\r\n')
    assert (hello.wid, hello.version, hello.pwdhash) == ("4qpc2443vpvai", 2, "1e44")


@pytest.mark.parametrize(
    ("line", "wid"),
    [
        (b'HELLO {"WID":"x"}', "x"),
        (b'HELLO {"Wid":"x"}', "x"),
        (b'HELLO {"\\u0077id":"x"}', "x"),
        (b'HELLO {"wid":"","WID":"x"}', "x"),
        (b'HELLO {"WID":"x","wid":""}', ""),
        (b'HELLO {"wid":"x","WID":null}', "x"),
        (b'HELLO {"wid":"x","wid":"y"}', "y"),
        (b'HELLO {"wid":null}', ""),
        (b'HELLO {"w\xc4\xb1d":"x"}', ""),  # a dotless i is another letter
        (b'HELLO {"wid ":"x"}', ""),
        (b'HELLO {"wid":"\\ud800x"}', "\ufffdx"),
        (b'HELLO {"wid":"\\ud83d\\ude00"}', "😀"),
        (b'HELLO {"wid":"\xff"}', "\ufffd"),
    ],
)
def test_who_is_a_consumer(line: bytes, wid: str) -> None:
    assert Hello.parse(line).wid == wid


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            '{"PWDHA\u017fH":"a","ho\u017ftname":"h","label\u017f":["l"]}',
            {"pwdhash": "a", "hostname": "h", "labels": ["l"]},
        ),
        ('{"R\u017f\u017f_\u212aB":5}', {"rss_kb": 5}),
        ('{"ho\ufb06name":5}', {"ho\ufb06name": 5}),  # a ligature folds to two letters in Python, not in Go
        ('{"V":1,"v":2}', {"v": 2}),
        ('{"v":2,"V":1}', {"v": 1}),
        ('{"labels":null}', {}),
        ('{"labels":["a",null]}', {"labels": ["a", ""]}),
        ('{"pid":-9223372036854775808,"v":255}', {"pid": -(2**63), "v": 255}),
        (
            '{"x":{"a":[1.5,1e999,"\\ud800",{"b":null}]},"y":null}',
            {"x": {"a": [1.5, None, "\ufffd", {"b": None}]}, "y": None},
        ),
    ],
)
def test_names_are_folded_as_go_folds_them(line: str, fields: dict[str, object]) -> None:
    assert Hello.parse(b"HELLO " + line.encode()).fields == fields


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"",
            b"HELLO",
            b"HELLO ",
            b"hello {}",
            b"HELLO{}",
            b"HELLO  {}",
            b"HELLO []",
            b"HELLO null",
            b'HELLO "x"',
            b" HELLO {}",
        ),
        *(
            b"HELLO {",
            b"HELLO {}x",
            b"HELLO {} {}",
            b"HELLO {'v':2}",
            b'HELLO {"v":2,}',
            b"HELLO {v:2}",
            b'HELLO {"a":"\x01"}',
        ),
        *(
            b'HELLO {"v":"2"}',
            b'HELLO {"v":2.0}',
            b'HELLO {"v":2e0}',
            b'HELLO {"v":-1}',
            b'HELLO {"v":256}',
            b'HELLO {"v":true}',
        ),
        *(
            b'HELLO {"wid":5}',
            b'HELLO {"WID":5}',
            b'HELLO {"wid":["x"]}',
            b'HELLO {"pwdhash":{}}',
            b'HELLO {"pwdhash":true}',
        ),
        *(b'HELLO {"labels":"x"}', b'HELLO {"labels":{}}', b'HELLO {"labels":[1]}', b'HELLO {"labels":[["x"]]}'),
        *(b'HELLO {"pid":"1"}', b'HELLO {"pid":1.5}', b'HELLO {"pid":9223372036854775808}', b'HELLO {"rss_kb":[]}'),
        *(b'HELLO {"wid":5,"wid":"x"}', b'HELLO {"hostname":{"a":1}}', b'HELLO {"a":NaN}', b'HELLO {"a":-Infinity}'),
        *(
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01\x02",
            b'HELLO {"a":' + b"[" * 100_000,
            b'HELLO {"pid":' + b"9" * 5000 + b"}",
        ),
    ],
)
def test_what_faktory_closes_on(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Hello.parse(line)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_hello_or_a_protocol_error(data: bytes) -> None:
    try:
        hello = Hello.parse(b"HELLO {" + data)
    except ProtocolError:
        return
    assert isinstance(hello.wid, str)


# The proof


@pytest.mark.parametrize(
    ("version", "rounds"), [("", 1), (',"v":1', 1), (',"v":null', 1), (',"v":2', 4735), (',"v":3', 4735)]
)
def test_the_right_password(version: str, rounds: int) -> None:
    proof = password_hash("secret", "3d2a", rounds)
    hello = Hello.parse(f'HELLO {{"pwdhash":"{proof}"{version}}}'.encode())
    assert hello.accepts("secret", SALTED)
    assert not hello.accepts("Secret", SALTED)
    assert not hello.accepts("secret", Greeting(2, "other", 4735))
    if rounds > 1:
        assert not hello.accepts("secret", Greeting(2, "3d2a", 4736))


@pytest.mark.parametrize("pwdhash", [b'""', b"null", b'"\\u00e9"', b'"\\ud800"', b'"0"'])
def test_no_proof_at_all(pwdhash: bytes) -> None:
    hello = Hello.parse(b'HELLO {"v":2,"pwdhash":' + pwdhash + b"}")
    assert not hello.accepts("secret", SALTED)
    assert not hello.accepts("", SALTED)


def test_a_proof_of_another_version_is_wrong() -> None:
    proof = password_hash("secret", "3d2a", 4735)
    assert not Hello.parse(f'HELLO {{"v":1,"pwdhash":"{proof}"}}'.encode()).accepts("secret", SALTED)


def test_the_last_version_and_the_last_proof_count() -> None:
    proof = password_hash("secret", "3d2a", 1)
    hello = Hello.parse(f'HELLO {{"v":2,"pwdhash":"x","V":1,"PwdHash":"{proof}"}}'.encode())
    assert hello.accepts("secret", SALTED)


def test_without_a_salt_nothing_is_proven() -> None:
    proof = password_hash("secret", "", 1)
    assert not Hello.parse(f'HELLO {{"pwdhash":"{proof}"}}'.encode()).accepts("secret", OPEN)


# HELLO, sent


def test_a_consumers_hello_for_upstream() -> None:
    hello = Hello.parse(
        b'HELLO {"wid":"w1","pid":7,"labels":["a"],"hostname":"h\xc3\xa9","pwdhash":"local","extra":{"a":[1]},"v":2}'
    )
    line = hello.for_upstream(SALTED, "secret", None)
    proof = password_hash("secret", "3d2a", 4735)
    assert sent(line) == {
        "wid": "w1",
        "pid": 7,
        "labels": ["a"],
        "hostname": "hé",
        "extra": {"a": [1]},
        "v": 2,
        "pwdhash": proof,
    }


def test_the_proof_for_upstream_follows_the_clients_version() -> None:
    fields = sent(Hello.parse(b'HELLO {"wid":"w1"}').for_upstream(SALTED, "secret", None))
    assert fields == {"wid": "w1", "pwdhash": password_hash("secret", "3d2a", 1)}
    assert Hello.parse(b"HELLO " + json.dumps(fields).encode()).accepts("secret", SALTED)


def test_the_local_proof_never_leaves() -> None:
    hello = Hello.parse(b'HELLO {"wid":"w1","pwdhash":"local","PWDHASH":"local too","pwdha\xc5\xbfh":"and this"}')
    assert sent(hello.for_upstream(OPEN, None, None)) == {"wid": "w1"}
    assert sent(hello.for_upstream(OPEN, "secret", None)) == {"wid": "w1"}
    assert sent(hello.for_upstream(SALTED, None, None)) == {"wid": "w1"}


@pytest.mark.parametrize(
    ("own", "given", "expected"), [("u", None, "u"), ("u", "up", "up"), (None, "up", "up"), (None, None, None)]
)
def test_the_username_for_upstream(own: str | None, given: str | None, expected: str | None) -> None:
    hello = Hello.parse(b"HELLO " + json.dumps({"wid": "w1", "UserName": own}).encode())
    assert sent(hello.for_upstream(OPEN, None, given)).get("username") == expected


@given(st.text(max_size=20), st.lists(st.text(max_size=5), max_size=3), st.integers(-(2**63), 2**63 - 1))
def test_a_hello_for_upstream_is_one_line_that_faktory_reads(wid: str, labels: list[str], pid: int) -> None:
    hello = Hello.parse(b"HELLO " + json.dumps({"wid": wid, "labels": labels, "pid": pid, wid: labels}).encode())
    again = Hello.parse(hello.for_upstream(OPEN, None, None))
    assert again == Hello({key: value for key, value in hello.fields.items() if key != "pwdhash"})


def test_our_own_hello() -> None:
    line = hello_line(greeting=SALTED, password="secret", username="u", hostname="h", pid=7, labels=["faktory-sidecar"])
    proof = password_hash("secret", "3d2a", 4735)
    assert sent(line) == {
        "hostname": "h",
        "pid": 7,
        "labels": ["faktory-sidecar"],
        "v": 2,
        "pwdhash": proof,
        "username": "u",
    }
    assert Hello.parse(line).accepts("secret", SALTED)
    assert Hello.parse(line).wid == ""


def test_our_own_hello_to_a_server_without_a_password() -> None:
    line = hello_line(greeting=OPEN, password="secret", username=None, hostname="h", pid=7, labels=[])
    assert sent(line) == {"hostname": "h", "pid": 7, "labels": [], "v": 2}
