"""Connections that somebody else reads while they say nothing but plain pushes: no client can tell."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from sidecar.producers import express, riders, shortcut
from tests.edge.running import OK, Client, faktory, lent, push, rider, sidecar

both = pytest.mark.parametrize("mode", ["disk", "memory"])


@both
async def test_only_a_producer_that_pushed_and_is_owed_nothing_is_lent(tmp_path: Path, mode: str) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        silent = await running.connect()
        worker = await running.connect(b'HELLO {"v":2,"wid":"worker-1"}\r\n')
        assert await worker.call(push("of-a-worker")) == OK
        client = await rider(running, "lent")
        assert [await client.call(push(f"lent-{number:04}")) for number in range(50)] == [OK] * 50
        assert lent(running.inner) == 1
        await running.until(lambda inner: inner.intake.owed == 0)
        assert len(server.stored()) == 52
        assert await silent.call(b"NOPE") == b"-ERR unknown command NOPE\r\n"


@both
async def test_whatever_else_a_lent_connection_says_is_answered_as_ever(tmp_path: Path, mode: str) -> None:
    others = [
        (b"NOPE\r\n", b"-ERR unknown command NOPE\r\n"),
        (b'PUSH {"jid":"no-type-here","jobtype":"","args":[]}\r\n', b"-ERR jobs must have a jobtype parameter\r\n"),
        (push("a-unique-one", ',"custom":{"unique_for":60}'), OK),
        (push("bare-line-feed").replace(b"\r\n", b"\n"), OK),
        (b'PUSHB [{"jid":"in-a-bulk-1","jobtype":"T","args":[]}]\r\n', b"$2\r\n{}\r\n"),
        (b"PUSH {not json}\r\n", b"-ERR invalid JSON: "),
        (b"\r\n", b"-ERR unknown command "),
    ]
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        client = await rider(running, "talker")
        for number, (line, expected) in enumerate(others):
            replies = [await client.call(push(f"plain-before-{number}")), await client.call(line)]
            assert replies[0] == OK
            assert replies[1].startswith(expected[:40]), (line, replies)
            assert await client.call(push(f"plain-after-{number}")) == OK
            await running.until(lambda inner: lent(inner) == 1)
            await client.send(push(f"mixed-1-{number}") + line + push(f"mixed-2-{number}"))
            mixed = [await client.reply() for _ in range(3)]
            assert [mixed[0], mixed[2]] == [OK, OK], (line, mixed)
            assert mixed[1].startswith(expected[:40])


@both
async def test_a_push_in_pieces_and_many_at_once(tmp_path: Path, mode: str) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        client = await rider(running, "pieces")
        line = push("in-three-pieces")
        for piece in (line[:3], line[3:20], line[20:]):
            await client.send(piece)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await client.reply() == OK
        await running.until(lambda inner: lent(inner) == 1)
        await client.send(b"".join(push(f"of-very-many-{number:05}") for number in range(5_000)))
        assert [await client.reply() for _ in range(5_000)] == [OK] * 5_000
        await running.until(lambda inner: inner.intake.owed == 0)
        assert len({job["jid"] for job in server.stored()}) == 5_002


@both
async def test_nobody_is_served_at_the_expense_of_others(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(express, "MOST_BYTES", 10)
    monkeypatch.setattr(shortcut, "MOST_BYTES", 10)
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        greedy = [await rider(running, f"greedy-{number}") for number in range(4)]
        modest = await rider(running, "modest")

        async def flood(client: Client, name: str) -> None:
            for number in range(100_000):
                assert await client.call(push(f"{name}-{number:06}")) == OK

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(greedy):
                nursery.start_soon(flood, client, f"greedy-{number}")
            for number in range(50):
                assert await modest.call(push(f"modest-{number:04}")) == OK
            nursery.cancel_scope.cancel()
        assert server.url


@both
async def test_the_end_of_a_lent_connection(tmp_path: Path, mode: str) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        polite, half, rude = [await rider(running, name) for name in ("polite", "half", "rude")]
        await polite.send(push("polite-last") + b"END\r\n")
        assert [await polite.reply(), await polite.reply()] == [OK, b""]
        await half.send(push("half-last"))
        await half.half_close()
        assert [await half.reply(), await half.reply()] == [OK, b""]
        assert isinstance(rude.stream, trio.SocketStream)
        rude.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await rude.send(push("rude-last"))
        await rude.stream.aclose()
        await running.until(lambda inner: inner.counts.producers == 0 and lent(inner) == 0)
        await running.until(lambda inner: inner.intake.owed == 0)
        assert {"polite-last", "half-last"} <= {job["jid"] for job in server.stored()}


@both
async def test_a_flush_takes_every_job_that_its_client_knows_to_be_accepted(tmp_path: Path, mode: str) -> None:
    """The event loop hears of a job later than its producer: a FLUSH must not overtake it."""
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        producer, other = await rider(running, "flushed"), await running.connect()
        for number in range(100):
            assert await producer.call(push(f"flushed-{number:04}")) == OK
            assert await other.call(b"FLUSH") == OK
            assert server.stored() == []
        await running.until(lambda inner: inner.intake.owed == 0)
        assert server.stored() == []


@both
async def test_a_client_that_does_not_read_its_replies(tmp_path: Path, mode: str) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        client = await rider(running, "deaf")
        assert isinstance(client.stream, trio.SocketStream)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        jobs = 40_000
        async with trio.open_nursery() as nursery:
            for start in range(0, jobs, 400):
                lines = b"".join(push(f"deaf-{number:06}") for number in range(start, start + 400))
                with trio.move_on_after(1.0) as patience:
                    await client.send(lines)
                if patience.cancelled_caught:
                    break
            else:
                start += 400
            nursery.cancel_scope.cancel()
        for _ in range(start):
            assert await client.reply() == OK
        assert server.url


async def test_nothing_is_lent_where_the_reply_is_faktorys(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="upstream") as running:
        client = await running.connect()
        assert [await client.call(push(f"not-lent-{number}")) for number in range(5)] == [OK] * 5
        assert running.inner.desk is None


@pytest.mark.usefixtures("defects_expected")
async def test_a_defect_ends_one_connection_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK="memory") as running:
        unlucky, other = await rider(running, "unlucky"), await rider(running, "beside-it")
        with monkeypatch.context() as patched:
            patched.setattr(running.inner.forwarder, "offer", lambda entries, *, linger: 1 // 0)
            assert await unlucky.call(push("unlucky-second")) == b""
        assert await other.call(push("beside-it-second")) == OK
        await running.until(lambda inner: inner.counts.producers == 1)


@both
async def test_a_look_that_fails_leaves_it_to_the_connections_own_task(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(data: bytes, clock: float) -> None:
        raise ValueError(data)

    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        client = await rider(running, "met-again")
        monkeypatch.setattr(riders, "plain_pushes", defect)
        assert await client.call(push("met-again-second")) == OK
        assert server.url
