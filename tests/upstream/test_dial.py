"""Every way in which a connection to upstream can't be made is named by its phase, in one line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from sidecar.config import load
from sidecar.upstream import dial
from sidecar.upstream.dial import Dialer, DialError

Talk = Callable[[trio.SocketStream], Awaitable[None]]


def dialer(url: str) -> Dialer:
    environment = {"SIDECAR_UPSTREAM": url, "SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_HTTP_LISTEN": "off"}
    return Dialer(load(environment, {}, resolve=lambda _: []).settings.upstream)


async def failure(url: str) -> tuple[str, str]:
    with pytest.raises(DialError) as caught:
        await dialer(url).dial()
    return caught.value.phase, caught.value.detail


async def failure_with(nursery: trio.Nursery, talk: Talk, secret: str = "") -> tuple[str, str]:
    """What a dial says of a server that talks like this."""
    listeners = await nursery.start(trio.serve_tcp, talk, 0)
    found = await failure(f"tcp://{secret}127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    nursery.cancel_scope.cancel()
    return found


def saying(*parts: bytes) -> Talk:
    """A server that says each part, the first at once and each further one after a line from us."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(parts[0])
        for part in parts[1:]:
            await stream.receive_some(4096)
            await stream.send_all(part)
        await stream.receive_some(4096)

    return talk


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example"])
async def test_a_name_that_can_not_be_one(host: str) -> None:
    phase, detail = await failure(f"tcp://{host}:7419")
    assert phase == "connect"
    assert "name not found" in detail


async def test_a_port_without_a_listener() -> None:
    assert await failure("tcp://127.0.0.1:1") == ("connect", "connection refused")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "this is no Faktory"),
        (b"220 mail.example ESMTP\r\n", "this is no Faktory"),
        (b"+PONG\r\n", "this is no Faktory"),
        (b"+HI {}\r\n", "this is no Faktory"),
        (b'+HI {"v":2,"s":"salt","i":99999999999}\r\n', "this is no Faktory"),
        (b"-ERR too many connections\r\n", "this is no Faktory"),
    ],
)
async def test_something_that_is_no_faktory(nursery: trio.Nursery, said: bytes, words: str) -> None:
    phase, detail = await failure_with(nursery, saying(said))
    assert phase == "handshake"
    assert words in detail


async def test_a_wrong_password_is_a_phase_of_its_own(nursery: trio.Nursery) -> None:
    talk = saying(b'+HI {"v":2,"s":"abc","i":10}\r\n', b"-ERR Invalid password\r\n")
    assert await failure_with(nursery, talk, ":secret@") == ("password", "upstream said: ERR Invalid password")


async def test_an_end_in_the_handshake(nursery: trio.Nursery) -> None:
    async def leave(stream: trio.SocketStream) -> None:
        await stream.send_all(b'+HI {"v":2}\r\n')
        await stream.receive_some(4096)

    phase, detail = await failure_with(nursery, leave)
    assert phase == "handshake"
    assert "closed the connection in the handshake" in detail


async def test_silence(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "HANDSHAKE_TIMEOUT", 0.2)

    async def say_nothing(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    phase, detail = await failure_with(nursery, say_nothing)
    assert phase == "handshake"
    assert "is this a Faktory?" in detail


async def test_what_came_behind_the_handshake_is_kept(nursery: trio.Nursery) -> None:
    talk = saying(b'+HI {"v":2}\r\n', b"+OK\r\n-ERR too many connections: 2001\r\n")
    listeners = await nursery.start(trio.serve_tcp, talk, 0)
    connected = await dialer(f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}").dial()
    assert connected.early == [b"-ERR too many connections: 2001\r\n"]
    await connected.stream.aclose()
    nursery.cancel_scope.cancel()
