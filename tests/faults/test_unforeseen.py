"""What nobody foresaw, at one place after the other: it ends itself alone, is told, and no acknowledged job is lost."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from sidecar import logs
from sidecar.app.linkreport import LinkReport
from sidecar.app.serving import Started, serve
from sidecar.app.stopping import Stop
from sidecar.config import load
from sidecar.demo.embedded import Command, EmbeddedFaktory, Reply
from sidecar.forwarder.forwarder import Forwarder
from sidecar.forwarder.settlement import Settlement
from sidecar.intake import Deadlines, Intake
from sidecar.journal.writer import Writer
from sidecar.ops.pulse import Pulse
from sidecar.producers.connection import Connection
from sidecar.producers.express import Express
from sidecar.producers.replies import ReplyQueue
from sidecar.supervision import FIRST, LAST, contained, guarded, supervised
from sidecar.upstream.dial import Dialer
from tests.demo.embedded_thread import ThreadedFaktory, in_thread
from tests.edge.running import HELLO, OK, Client, faktory, push, sidecar
from tests.faults.relay import Relay
from tests.real.polling import wait_for
from tests.real.sidecar_command import SidecarProcess

pytestmark = [pytest.mark.usefixtures("defects_expected"), pytest.mark.slow]

SECRET = "hunter2"
"""The words of an exception, which nobody may see."""


def job(index: int) -> dict[str, Any]:
    return {"jid": f"jid-{index:08}", "jobtype": "T", "args": []}


class Fails:
    """Makes a method fail for some calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, error: Exception) -> None:
        self.times = 0
        original = getattr(owner, name)

        def method(*arguments: Any, **options: Any) -> Any:
            if self.times:
                self.times -= 1
                raise error.with_traceback(None)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, method)


def known(where: str) -> int:
    """How many defects were counted there."""
    return logs.defects().get(where, 0)


async def until(look: Callable[[], object]) -> None:
    with trio.fail_after(20):
        while not look():  # noqa: ASYNC110 - of which no event tells
            await trio.sleep(0.01)


# supervision itself


async def test_who_fails_is_started_again_later_each_time(autojump_clock: trio.testing.MockClock) -> None:
    starts: list[float] = []

    async def part() -> None:
        starts.append(trio.current_time())
        if len(starts) < 12:
            raise ValueError(SECRET)

    before = known("part")
    await supervised("part", part)
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses[:3] == pytest.approx([FIRST, 2 * FIRST, 4 * FIRST])
    assert pauses[-1] == pytest.approx(LAST)
    assert known("part") == before + 11


async def test_groups_are_contained_and_cancellation_and_interrupts_are_not() -> None:
    async def group() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            await trio.sleep_forever()

    async def fails() -> None:
        raise MemoryError

    assert not await contained("part", group)
    with trio.CancelScope() as scope:
        scope.cancel()
        await supervised("part", trio.sleep_forever)
    assert scope.cancelled_caught

    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await contained("part", interrupted)
    assert not guarded("part", int, "x")
    assert guarded("part", int, "1")


# dials, replies, connections


ANYTHING = [
    RuntimeError(SECRET),
    MemoryError(),
    OSError(99, SECRET),
    UnicodeEncodeError("idna", "\udcff", 0, 1, SECRET),
    ExceptionGroup(SECRET, [KeyError(SECRET)]),
]


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
async def test_a_dial_may_fail_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The link's, the side connection's and a tunnel's: jobs wait, commands are refused, and then all works again."""
    async with faktory() as server, sidecar(server.url, tmp_path) as running:
        client, other = await running.connect(), await running.connect()
        await running.until(lambda inner: inner.link.pipe is not None)
        with monkeypatch.context() as patched:
            dials = Fails(patched, Dialer, "_connect", error)
            dials.times = 1_000_000
            running.inner.link.drop("a cut")
            await running.until(lambda inner: inner.link.pipe is None and dials.times < 999_998)
            assert await client.call(push("jid-00000")) == OK
            assert (await other.call(b"INFO")).startswith(b"-ERR not sent: Faktory can't be reached")
            worker = await running.connect(None)
            assert (await worker.reply()).startswith(b"+HI")
            refusal = await worker.call(b'HELLO {"v":2,"wid":"w"}')
            assert refusal.startswith(b"-ERR Faktory can't be reached")
            assert SECRET not in f"{running.inner.link.down_reason}{refusal!r}"
        await until(lambda: len(server.stored()) == 1)
        assert (await client.call(b"INFO")).startswith(b"$")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Forwarder, "pump"),
        (Forwarder, "_send"),
        (Forwarder, "_answered"),
        (Settlement, "_end"),
        (Forwarder, "link_changed"),
        (LinkReport, "changed"),
        (Intake, "hear"),
        (ReplyQueue, "filled"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
@pytest.mark.parametrize("mode", ["memory", "disk"])
async def test_a_defect_between_acknowledgement_and_upstream_loses_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, mode: str
) -> None:
    """At one call after the other: whatever got its `+OK` arrives, nothing stays behind, and the sidecar goes on."""
    fails, acknowledged = Fails(monkeypatch, owner, name, ValueError(SECRET)), set[str]()
    async with faktory() as server, sidecar(server.url, tmp_path, SIDECAR_ACK=mode) as running:
        for turn in range(4):
            await running.until(lambda inner: inner.link.pipe is not None)
            client = await running.connect()
            fails.times = 1
            if turn == 2 or owner is LinkReport or name == "link_changed":
                running.inner.link.drop("a cut")
            for index in range(5):
                jid = f"jid-{turn}-{index:05}"
                with suppress(trio.BrokenResourceError), trio.move_on_after(0.5):
                    await client.send(push(jid))
                    reply = await client.reply()
                    if reply == OK:
                        acknowledged.add(jid)
                    elif not reply:
                        client = await running.connect()
            await until(lambda: not fails.times)  # it did fail
        await until(lambda: acknowledged <= {each["jid"] for each in server.stored()})
        await until(lambda: not running.inner.intake.owed)
    assert len(acknowledged) > 8


@pytest.mark.parametrize("failures", [1, 3])
@pytest.mark.parametrize("mode", ["memory", "disk"])
async def test_a_defect_in_one_lost_batch_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, failures: int
) -> None:
    """Many batches are in flight when the link is lost, and what becomes of some of them can't be worked out."""
    arrived: list[bytes] = []
    answer = trio.Event()

    async def hold(command: Command) -> Reply | None:
        if command.verb == "PUSHB":
            arrived.append(b"")
            await answer.wait()
        return None

    jids = {f"jid-{index:08}" for index in range(6)}
    fails = Fails(monkeypatch, Settlement, "apply", ValueError(SECRET))
    async with (
        faktory(intercept=hold) as server,
        sidecar(server.url, tmp_path, SIDECAR_ACK=mode, BATCH_MAX_SIZE=1) as running,
    ):
        client = await running.connect()
        for jid in jids:
            assert await client.call(push(jid)) == OK
        await running.until(lambda inner: inner.forwarder.in_flight == len(jids))
        await until(lambda: arrived)
        fails.times = failures
        running.inner.link.drop("a cut")
        await until(lambda: not fails.times)
        answer.set()
        await until(lambda: jids <= {each["jid"] for each in server.stored()})
        await until(lambda: not running.inner.intake.owed)
        assert running.inner.counts.in_doubt >= len(server.stored()) - len(jids)


@pytest.mark.parametrize("owner", [Deadlines, Pulse, Express, Connection], ids=lambda owner: owner.__name__)
async def test_what_runs_for_ever_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type
) -> None:
    name = {Deadlines: "run", Pulse: "look", Express: "_take", Connection: "run"}[owner]
    fails = Fails(monkeypatch, owner, name, ValueError(SECRET))
    async with faktory() as server, whole(server.url, tmp_path) as port:
        fails.times = 1
        for index in range(3):
            client = await connected(port)
            if client is not None:
                for each in range(3):
                    with suppress(trio.BrokenResourceError):
                        await client.send(push(f"jid-{index}-{each:05}"))
                        await client.reply()
            await trio.sleep(0.4)
        client = await connected(port)
        assert client is not None
        assert await client.call(push("jid-last")) == OK
        await until(lambda: "jid-last" in {each["jid"] for each in server.stored()})


# the journal's thread


async def test_a_defect_in_the_journals_thread_delivers_what_memory_holds_and_ends_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is taken any more; what is delivered is deleted, so that the next start sends nothing twice."""
    fails = Fails(monkeypatch, Writer, "_upkeep", TypeError(SECRET))
    settings = load(environment("tcp://127.0.0.1:1", tmp_path), {}).settings
    server = EmbeddedFaktory()
    ended: list[int] = []

    async def serving(task_status: trio.TaskStatus[Started]) -> None:
        ended.append(await serve(settings, task_status=task_status))

    async with trio.open_nursery() as nursery:
        upstream = await nursery.start(server.run)
        settings = load(environment(f"tcp://127.0.0.1:{upstream}", tmp_path), {}).settings
        dials = Fails(monkeypatch, Dialer, "_connect", OSError(111, "refused"))
        dials.times = 3
        started: Started = await nursery.start(serving)
        client = await connected(int(started.addresses[0].rpartition(":")[2]))
        assert client is not None
        for index in range(50):
            assert await client.call(push(f"jid-{index:05}")) == OK
        fails.times = 1
        replies = []
        with trio.move_on_after(20):
            while not ended and (reply := await client.call(push("jid-late"))):
                replies.append(reply)
                await trio.sleep(0.02)
        assert any(reply.startswith(b"-ERR") for reply in replies)
        await until(lambda: ended)
        assert ended == [1]
        taken = 50 + sum(reply == OK for reply in replies)
        assert len(server.stored()) == taken
        nursery.cancel_scope.cancel()
    async with sidecar("tcp://127.0.0.1:1", tmp_path, link=False, SIDECAR_ACK="disk") as again:
        assert again.inner.journal is not None
        assert again.inner.journal.waiting == 0


# the process


def test_a_redial_without_threads_loses_no_acknowledged_job(tmp_path: Path) -> None:
    """A limit on processes: no thread can be started for the name's look-up."""
    server, lacking = EmbeddedFaktory(), tmp_path / "lacking"
    with in_thread(server) as token, Relay(server.port) as relay:
        upstream = ThreadedFaktory(server, token, None)
        settings = {"SIDECAR_UPSTREAM": f"tcp://localhost:{relay.port}", "SIDECAR_ACK": "memory"}
        settings["NO_THREADS_WHILE"] = str(lacking)
        sidecar = SidecarProcess(tmp_path, settings, program="tests.faults.no_threads")
        try:
            sidecar.wait_for_event("link_up")
            with sidecar.client() as client:
                lacking.touch()
                wait_for(
                    lambda: len(list(Path(f"/proc/{sidecar.process.pid}/task").iterdir())) == 2, what="no spare one"
                )
                relay.reset()
                wait_for(lambda: len(sidecar.events("link_down")) >= 3, what="redials fail", timeout=30)
                assert "no thread can be started" in sidecar.events("link_down")[-1]["message"]
                for index in range(100):
                    assert client.push(job(index)) == "OK"
            lacking.unlink()
            wait_for(lambda: len(upstream.stored()) == 100, what="all 100 arrive", timeout=40)
            sidecar.terminate()
            assert sidecar.wait() == 0
        finally:
            sidecar.kill()


def environment(upstream: str, directory: Path) -> dict[str, str]:
    return {
        "SIDECAR_UPSTREAM": upstream,
        "SIDECAR_LISTEN": "127.0.0.1:0",
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_JOURNAL_DIR": str(directory / "journal"),
    }


@asynccontextmanager
async def whole(upstream: str, directory: Path) -> AsyncIterator[int]:
    """A sidecar as `serve` runs it, in this event loop; its port."""
    stop = Stop()
    settings = load(environment(upstream, directory), {}).settings
    async with trio.open_nursery() as nursery:
        started: Started = await nursery.start(partial(serve, settings, stop=stop))
        yield int(started.addresses[0].rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def connected(port: int) -> Client | None:
    """A client after its handshake; None when it was closed meanwhile."""
    client = Client(await trio.open_tcp_stream("127.0.0.1", port))
    if not (await client.reply()).startswith(b"+HI"):
        return None
    return client if await client.call(HELLO) == OK else None
