"""What is refused is counted in jobs, whichever door it came to."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.edge.running import OK, REFUSED, push, sidecar

MIB = 1024 * 1024


async def test_a_run_of_pushes_without_room_counts_each(tmp_path: Path) -> None:
    async with sidecar(REFUSED, tmp_path, SIDECAR_MEMORY_MAX_BYTES=MIB) as running:
        client = await running.connect()
        large = ',"custom":{"text":"' + "x" * MIB + '"}'
        assert await client.call(push("fills-it-all", large)) == OK
        await client.send(b"".join(push(f"no-room-{number:03}") for number in range(7)))
        replies = [await client.reply() for _ in range(7)]
        assert all(reply.startswith(b"-ERR not sent: memory full") for reply in replies), replies
        assert running.inner.counts.refused["full"] == 7


async def test_a_command_whose_time_is_over_counts_its_jobs(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with sidecar(REFUSED, tmp_path, SIDECAR_ACK="upstream") as running:
        client = await running.connect()
        jobs = b",".join(push(f"too-late-{number:03}")[5:].strip() for number in range(5))
        reply = await client.call(b"PUSHB [" + jobs + b"]")
        assert reply.startswith(b"-ERR not sent: "), reply
        assert running.inner.counts.refused["not_sent"] == 5
