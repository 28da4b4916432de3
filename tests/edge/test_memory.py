"""What one client can make the sidecar hold."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from sidecar.demo.embedded import Command, Reply
from tests.edge.running import REFUSED, Client, faktory, push, sidecar

OK = b"+OK\r\n"
MIB = 1 << 20


async def send_until_stuck(client: Client, line: bytes, most: int) -> int:
    """Send a line again and again; returns how many bytes were taken before nobody read on."""
    sent = 0
    with trio.move_on_after(10.0):
        while sent < most:
            with trio.move_on_after(1.5) as stuck:
                await client.send(line)
            if stuck.cancelled_caught:
                break
            sent += len(line)
    return sent


async def test_commands_that_wait_for_upstream_are_held_in_bounds(tmp_path: Path) -> None:
    """Doubtful jobs, of which only Faktory can judge, and a Faktory that doesn't answer."""

    async def silent(command: Command) -> Reply | None:
        await trio.sleep_forever()
        return None

    async with faktory(intercept=silent) as server, sidecar(server.url, tmp_path, link=False) as running:
        client = await running.connect()
        doubtful = b'PUSH {"jid":"doubtful-job","jobtype":"T","args":["%s"],"Queue":"q"}\r\n' % (b"x" * MIB)
        assert await send_until_stuck(client, doubtful, 100 * MIB) < 30 * MIB


async def test_a_client_that_reads_no_replies_is_not_read_from(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path, link=False) as running:
        client = await running.connect()
        sent = await send_until_stuck(client, b"INFO\r\n" * 10_000, 100 * MIB)
        assert sent < 10 * MIB


async def test_a_slow_writer_is_served_byte_by_byte(tmp_path: Path) -> None:
    async with faktory() as server, sidecar(server.url, tmp_path) as running:
        client = await running.connect()
        for byte in push("slowly-written"):
            await client.send(bytes([byte]))
        assert await client.reply() == OK
        await running.until(lambda inner: inner.intake.owed == 0)
        assert [job["jid"] for job in server.stored()] == ["slowly-written"]


async def test_memory_mode_slows_producers_and_then_refuses_them_in_words(tmp_path: Path) -> None:
    async with sidecar(REFUSED, tmp_path, link=False, SIDECAR_MEMORY_MAX_BYTES=MIB) as running:
        client = await running.connect()
        replies = [
            await client.call(push(f"large-one-{number}", f',"custom":{{"a":"{"x" * 100_000}"}}'))
            for number in range(12)
        ]
        assert replies[:9] == [OK] * 9
        assert replies[-1].startswith(b"-ERR not sent: memory full: ")
        held = running.inner.forwarder.unstored_memory
        assert held < 1.2 * MIB


async def test_a_full_store_refuses_all_that_came_together_within_one_wait(tmp_path: Path) -> None:
    """A second for each command would be too late for the clients' patience from the fifth on."""
    async with sidecar(REFUSED, tmp_path, link=False, SIDECAR_MEMORY_MAX_BYTES=MIB) as running:
        client = await running.connect()
        assert await client.call(push("fills-it", f',"custom":{{"a":"{"x" * MIB}"}}')) == OK
        bulk = json.dumps([{"jid": "one-of-a-bulk", "jobtype": "T", "args": []}]).encode()
        started = trio.current_time()
        await client.send((b"PUSHB " + bulk + b"\r\n") * 6)
        replies = [await client.reply() for _ in range(6)]
        assert all(reply.startswith(b"-ERR not sent: memory full: ") for reply in replies)
        assert 0.9 < trio.current_time() - started < 2.5
