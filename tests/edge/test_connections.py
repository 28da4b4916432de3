"""What a client of the local endpoint is told, however it speaks."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from sidecar.demo.embedded import Command, Reply
from sidecar.producers.handshake import MAX_HELLO
from tests.edge.running import HELLO, REFUSED, faktory, push, sidecar

OK = b"+OK\r\n"


async def test_hello_and_commands_may_share_a_packet_and_end_in_a_bare_lf(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path) as running:
        client = await running.connect(None)
        await client.send(b'HELLO {"v":2,"wid":""}\n' + push("in-one-packet").replace(b"\r\n", b"\n") + b"NOPE\n")
        replies = [await client.reply() for _ in range(4)]
        assert replies == [b'+HI {"v":2}\r\n', OK, OK, b"-ERR unknown command NOPE\r\n"]
        assert [job["jid"] for job in server.stored()] == ["in-one-packet"]


async def test_end_is_answered_by_the_replies_before_it_and_a_close(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path) as running:
        client = await running.connect()
        await client.send(push("before-end") + b"NOPE\r\nEND\r\n" + push("behind-end"))
        assert [await client.reply() for _ in range(3)] == [OK, b"-ERR unknown command NOPE\r\n", b""]
        await running.until(lambda inner: inner.intake.owed == 0)
        assert [job["jid"] for job in server.stored()] == ["before-end"]


async def test_a_half_close_has_everything_answered_and_a_line_without_an_end_ignored(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="upstream") as running:
        client = await running.connect()
        await client.send(b"".join(push(f"half-closed-{number}") for number in range(500)) + b"INFO\r\n")
        await client.send(push("no-end-of-line").rstrip())
        await client.half_close()
        replies = [await client.reply() for _ in range(502)]
        assert replies[:500] == [OK] * 500
        assert replies[500].startswith(b"$")
        assert replies[501] == b""
        assert len(server.stored()) == 500


async def test_replies_to_mixed_pipelined_commands_come_in_their_order(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="disk") as running:
        client = await running.connect()
        bulk = b'PUSHB [{"jid":"of-a-bulk-1","jobtype":"T","args":[]},{"jid":"of-a-bulk-2","jobtype":"","args":[]}]\r\n'
        await client.send((push("mixed-up-1") + b"NOPE\r\n" + bulk + push("short"[:5]) + b"PUSHB []\r\n") * 20)
        refused = json.dumps({"of-a-bulk-2": "jobs must have a jobtype parameter"}, separators=(",", ":")).encode()
        expected = [
            OK,
            b"-ERR unknown command NOPE\r\n",
            b"$%d\r\n%s\r\n" % (len(refused), refused),
            b"-ERR jobs must have a reasonable jid parameter\r\n",
            b"$2\r\n{}\r\n",
        ] * 20
        assert [await client.reply() for _ in range(100)] == expected


async def test_a_client_that_says_nothing_is_shown_the_door_after_two_seconds(tmp_path: Path) -> None:
    async with sidecar(REFUSED, tmp_path, link=False) as running:
        client = await running.connect(None)
        started = trio.current_time()
        assert await client.reply() == b'+HI {"v":2}\r\n'
        await client.send(b"HELLO {")
        assert await client.reply() == b""
        assert 1.5 < trio.current_time() - started < 4


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["unfinished", "whole"])
async def test_a_greeting_is_short(tmp_path: Path, end: bytes) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path) as running:
        client = await running.connect(None)
        assert (await client.reply()).startswith(b"+HI {")
        with suppress(trio.BrokenResourceError):  # it may be closed before all was sent
            await client.send(b'HELLO {"v":2,"hostname":"' + b"x" * MAX_HELLO + b'"}' + end)
        with trio.fail_after(1):  # before the time for a handshake is over
            assert await client.reply() == b""


async def test_a_fetch_that_takes_too_long_ends_the_connection_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A late reply could carry a job. So the client's connection ends; ours to upstream must end with it."""

    async def slow(command: Command) -> Reply | None:
        if command.verb == "FETCH":
            await trio.sleep(1.0)
        return None

    async with faktory(intercept=slow) as server, sidecar(server.url, tmp_path) as running:
        running.inner.deadlines.limit = 0.2
        client = await running.connect(b'HELLO {"v":2,"wid":"patient"}\r\n')
        started = trio.current_time()
        await client.send(b"FETCH default\r\n" + b'BEAT {"wid":"patient"}\r\n')
        assert await client.reply() == b""
        assert trio.current_time() - started < 0.9
        await running.until(lambda inner: inner.counts.consumers == 0)
        await running.until(lambda _: server.state.connections == 1)


async def test_a_producer_stays_connected_when_a_fetch_can_not_reach_upstream(tmp_path: Path) -> None:
    async with sidecar(REFUSED, tmp_path, link=False) as running:
        client = await running.connect()
        await client.send(b"FETCH default\r\n" + push("behind-the-fetch") + b'BEAT {"wid":"\\u0061"}\r\nEND\r\n')
        replies = [await client.reply() for _ in range(4)]
        assert replies[0].startswith(b"-ERR Faktory can't be reached (connect: ")
        assert replies[1] == OK
        assert replies[2].startswith(b"-ERR Faktory can't be reached (connect: ")
        assert replies[3] == b""


async def test_consumers_of_one_worker_are_all_refused_in_time_when_upstream_is_silent(tmp_path: Path) -> None:
    """The others wait for the first one's greeting: the time of the last must not be the sum."""
    async with trio.open_nursery() as nursery:
        deaf = await nursery.start(
            trio.serve_tcp,
            _say_nothing,
            0,
        )
        port = deaf[0].socket.getsockname()[1]
        async with sidecar(f"tcp://127.0.0.1:{port}", tmp_path, link=False) as running:
            clients = [await running.connect(None) for _ in range(3)]
            started = trio.current_time()
            for client in clients:
                await client.send(b'HELLO {"v":2,"wid":"one-worker"}\r\n')
            for client in clients:
                assert await client.reply() == b'+HI {"v":2}\r\n'
                assert (await client.reply()).startswith(b"-ERR Faktory can't be reached")
            assert trio.current_time() - started < 4.9
        nursery.cancel_scope.cancel()


async def _say_nothing(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_a_line_that_is_too_long_is_refused_in_words_behind_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is still sending: a close with its bytes unread would be a reset, and the words could be lost."""
    async with faktory() as server, sidecar(server.url, tmp_path) as running:
        client = await running.connect()
        await client.send(b"NOPE\r\n" + push("before-the-long-one") + b"PUSH " + b"x" * (40 << 20))
        replies = [await client.reply() for _ in range(4)]
        assert replies[:2] == [b"-ERR unknown command NOPE\r\n", OK]
        assert replies[2] == b"-ERR line too long: a command line is longer than 33,554,432 bytes\r\n"
        assert replies[3] == b""


async def test_a_flood_of_strangers_is_summed_up_in_the_log(tmp_path: Path) -> None:
    lines: list[str] = []
    async with sidecar(REFUSED, tmp_path, link=False) as running:
        log = running.inner.floods._log
        running.inner.floods._log = _Recorder(lines)  # type: ignore[assignment]
        for number in range(60):
            client = await running.connect(None)
            await client.send(b"GET / HTTP/1.1\r\n\r\n" if number % 2 else b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
            assert await client.reply() == b'+HI {"v":2}\r\n'
            assert await client.reply() == b""
            await client.stream.aclose()
        running.inner.floods._log = log
    assert any("HTTP" in line for line in lines)
    assert any("TLS" in line for line in lines)
    assert len(lines) <= 10


class _Recorder:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def warning(self, event: str, **fields: object) -> None:
        self._lines.append(f"{event} {fields['message']}")


async def test_connections_that_open_and_close_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with sidecar(REFUSED, tmp_path, link=False) as running:
        capsys.readouterr()
        for how in (b"", HELLO, b"HEL", HELLO + b"END\r\n"):
            client = await running.connect(None)
            if how:
                await client.send(how)
            await client.stream.aclose()
        await running.until(lambda inner: inner.counts.producers == 0)
        await trio.sleep(0.05)
        said = capsys.readouterr()
        assert said.err + said.out == ""


@pytest.mark.parametrize("goodbye", [b"END\r\n", b""], ids=["END", "just a close"])
async def test_a_consumer_that_leaves_has_its_upstream_connection_ended_with_an_end(
    goodbye: bytes, tmp_path: Path
) -> None:
    verbs: list[str] = []

    async def listen(command: Command) -> Reply | None:
        if command.wid == "leaving":
            verbs.append(command.verb)
        return None

    async with faktory(intercept=listen) as server, sidecar(server.url, tmp_path) as running:
        client = await running.connect(b'HELLO {"v":2,"wid":"leaving"}\r\n')
        assert await client.call(b'BEAT {"wid":"leaving"}') == OK
        await client.send(goodbye)
        await client.half_close()
        assert await client.reply() == b""
        await running.until(lambda _: "leaving" not in server.state.workers)
        assert verbs == ["BEAT", "END"]
        await running.until(lambda inner: inner.counts.consumers == 0)
