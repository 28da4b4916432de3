"""Web pages of others are kept out, and who doesn't know the token."""

from __future__ import annotations

import base64

import pytest
import trio

from sidecar.config import Bind
from sidecar.web.guard import Guard
from tests.web.conftest import start
from tests.web.serving import Client, RecordingIntake

TOKEN = "correct horse: battery"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LOCALHOST:3000", True),
        ("127.0.0.1", True),
        ("127.8.9.1:80", True),
        ("[::1]:3000", True),
        ("[::ffff:127.0.0.1]", True),
        ("localhost.evil.example", False),
        ("evil.example", False),
        ("evil.example:3000", False),
        ("0.0.0.0:3000", False),
        ("[::]", False),
        ("192.168.0.7", False),
        ("user@localhost", False),
        ("evil.example/@localhost", False),
        ("localhost#", False),
        ("", False),
        ("ſocalhost", False),
    ],
)
def test_host_on_loopback(host: str, allowed: bool) -> None:
    problem = Guard(token=None, loopback=True).check({b"host": host.encode()})

    assert (problem is None) is allowed
    assert problem is None or problem.status == 421


def test_any_host_where_more_than_loopback_is_bound() -> None:
    guard = Guard(token=None, loopback=False)

    assert guard.check({b"host": b"sidecar.cluster.local"}) is None
    assert guard.check({}) is None


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8080", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:3000", True),
        ("http://sidecar.internal:9000", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://sidecar.internal.evil.example", False),
        ("http://evil.example:3000", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("chrome-extension://localhost", False),
        ("http://[::1", False),
        ("http://lo\xe7alhost", False),
    ],
)
def test_origin(origin: str, allowed: bool) -> None:
    headers = {b"host": b"sidecar.internal:3000", b"origin": origin.encode("latin-1")}
    problem = Guard(token=None, loopback=False).check(headers)

    assert (problem is None) is allowed
    assert problem is None or problem.status == 403


@pytest.mark.parametrize(
    ("site", "allowed"), [("cross-site", False), ("same-site", True), ("same-origin", True), ("none", True)]
)
def test_fetch_metadata(site: str, allowed: bool) -> None:
    problem = Guard(token=None, loopback=True).check({b"host": b"localhost", b"sec-fetch-site": site.encode()})

    assert (problem is None) is allowed


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (basic(f"anybody:{TOKEN}"), True),
        (basic(f":{TOKEN}"), True),
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer wrong", False),
        (f"Bearer {TOKEN}x", False),
        (TOKEN, False),
        (basic(TOKEN), False),
        (basic(f"{TOKEN}:"), False),
        ("Basic not-base64!", False),
        ("Digest x", False),
    ],
)
def test_token(authorization: str | None, allowed: bool) -> None:
    headers = {b"host": b"localhost"}
    if authorization is not None:
        headers[b"authorization"] = authorization.encode()
    problem = Guard(token=TOKEN, loopback=False).check(headers)

    assert (problem is None) is allowed
    assert problem is None or problem.status == 401


HOSTILE = [
    ("a page that posts a form", [("Origin", "https://evil.example"), ("Content-Type", "text/plain")], 403),
    ("a sandboxed frame", [("Origin", "null")], 403),
    ("an image or a link", [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")], 403),
    ("a rebound name", [("Host", "evil.example:3000")], 421),
    ("a rebound name with its own origin", [("Host", "evil.example"), ("Origin", "http://evil.example")], 421),
]


@pytest.mark.parametrize(("headers", "status"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
@pytest.mark.parametrize("path", ["/jobs/add", "/jobs/batch", "/jobs", "/docs", "/openapi.json", "/nothing"])
async def test_a_hostile_page_gets_nowhere(
    client: Client, intake: RecordingIntake, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    answer = await client.request("POST", path, {"a": 1, "b": 2}, headers)

    assert answer.status == status
    answer.problem()
    assert not intake.requests
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_preflight_of_a_foreign_page_is_refused(client: Client) -> None:
    headers = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")]
    answer = await client.request("OPTIONS", "/jobs/add", b"", headers)

    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_foreign_web_socket_is_refused(client: Client) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    headers += [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    answer = await client.request("GET", "/docs", b"", headers)

    assert answer.status == 403


async def test_every_path_wants_the_token(nursery: trio.Nursery, intake: RecordingIntake) -> None:
    port = await start(nursery, intake, token=TOKEN, where=Bind("0.0.0.0", 0))

    async def ask(path: str, *headers: tuple[str, str]) -> tuple[int, dict[str, str]]:
        client = await Client.connect(port)
        async with client.stream:
            answer = await client.request("POST", path, {"a": 1, "b": 2}, headers)
            return answer.status, answer.headers

    for path in ("/jobs/add", "/docs", "/nothing"):
        status, headers = await ask(path)
        assert status == 401
        assert "Basic" in headers["www-authenticate"]
        assert "Bearer" in headers["www-authenticate"]
    assert not intake.requests
    assert (await ask("/jobs/add", ("Authorization", f"Bearer {TOKEN}")))[0] == 200
    assert (await ask("/jobs/add", ("Authorization", basic(f"me:{TOKEN}")), ("Host", "sidecar.internal")))[0] == 200
