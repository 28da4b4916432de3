"""The real intake, forwarder and journal between scripted producers and a scripted upstream.

One `Run` is one life of the process: an event loop in a thread, with a clock that moves only when it is told to, and a
journal on a real disk. A crash takes the files as they are between two commits, as `kill -9` leaves them.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio
import trio.testing

from sidecar.config import Ack
from sidecar.errors import Refusal
from sidecar.forwarder import Forwarder
from sidecar.forwarder.batching import Batcher, Limits
from sidecar.intake import Deadlines, Intake, Verdicts
from sidecar.jobs import Origin
from sidecar.journal import Journal, Row
from sidecar.journal.store import Store
from sidecar.logs import FlushLog, get_logger
from sidecar.metrics import Counts
from sidecar.protocol.jobs import Job
from sidecar.protocol.replies import OK

DEPTH, BATCH, ROOM = 3, 4, 12_000
"""Small, so that some dozens of jobs meet every limit; `ROOM` is a quarter of what memory would hold of them."""

UPSTREAM = "tcp://upstream.example:7419"
Got = TypeVar("Got")


@dataclass
class Upstream:
    """The server as the model knows it; it outlives every process.

    Attributes:
        stored: how often each job was stored.
        seen: jobs in the order in which they were first sent.
        unfit: refused one by one, for good, in the map.
        poison: refused with all their batch.
        killers: end the connection that they come on.
    """

    stored: Counter[str] = field(default_factory=Counter)
    seen: dict[str, None] = field(default_factory=dict)
    unfit: set[str] = field(default_factory=set)
    poison: set[str] = field(default_factory=set)
    killers: set[str] = field(default_factory=set)

    def see(self, command: bytes) -> None:
        """A command was sent to it; whether it arrives is another question."""
        self.seen.update(dict.fromkeys(jids_of(command)))

    def kills(self, command: bytes) -> bool:
        """Whether this command ends the connection."""
        return not self.killers.isdisjoint(jids_of(command))

    def carry_out(self, command: bytes) -> bytes:
        """Store what is fit; returns the reply."""
        jids = jids_of(command)
        bulk = command.startswith(b"PUSHB")
        if not self.poison.isdisjoint(jids) or (not bulk and not self.unfit.isdisjoint(jids)):
            return b"-ERR invalid JSON: nobody can read this\r\n"
        refused = {jid: "jobs must have a jobtype parameter" for jid in jids if jid in self.unfit}
        self.stored.update(jid for jid in jids if jid not in refused)
        if not bulk:
            return OK
        body = json.dumps(refused).encode()
        return b"$%d\r\n%s\r\n" % (len(body), body) if refused else b"$2\r\n{}\r\n"


def jids_of(command: bytes) -> list[str]:
    """The jobs of a `PUSH` or `PUSHB`."""
    verb, _, body = command.partition(b" ")
    found = json.loads(body)
    return [job["jid"] for job in (found if verb == b"PUSHB" else [found])]


class ScriptedPipe:
    """Keeps commands until the script says what becomes of them."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.lost: str | None = None
        self.owed: deque[tuple[bytes, Callable[[bytes | None], None]]] = deque()

    def send(self, command: bytes, on_reply: Callable[[bytes | None], None]) -> None:
        """As `Pipe.send`."""
        self._upstream.see(command)
        self.owed.append((command, on_reply))


class ScriptedLink:
    """Goes up and down when the script says so."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.pipe: ScriptedPipe | None = None
        self.down_reason: str | None = "not connected yet"
        self.round_trip = 0.0
        self.version = ""
        self.dropped: str | None = None
        self.changed: Callable[[], None] = lambda: None

    def drop(self, reason: str) -> None:
        """As `Link.drop`: it takes effect a little later."""
        self.dropped = reason

    def up(self) -> None:
        """A new connection."""
        if self.pipe is None:
            self.pipe, self.down_reason = ScriptedPipe(self._upstream), None
            self.changed()

    def down(self, reason: str) -> None:
        """The connection is lost, with all that is owed on it."""
        pipe = self.pipe
        if pipe is None:
            return
        pipe.lost = reason
        while pipe.owed:
            pipe.owed.popleft()[1](None)
        self.pipe, self.down_reason, self.dropped = None, reason, None
        self.changed()


class Run:
    """One life of the process.

    Args:
        directory: of the journal.
        upstream: what stands at the other end.
    """

    def __init__(self, directory: Path, upstream: Upstream) -> None:
        self.directory = directory
        self.upstream = upstream
        self.clock = trio.testing.MockClock(rate=0)
        self.told: dict[str, str] = {}
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="run", daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        if self._failure is not None:
            raise self._failure

    def _live(self) -> None:
        try:
            trio.run(self._main, clock=self.clock)
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        self.journal = Journal.open(self.directory, upstream=UPSTREAM, max_bytes=256 << 20)
        self.link = ScriptedLink(self.upstream)
        self.counts = Counts()
        self.batcher = Batcher(Limits(BATCH, 100_000, 0.05))
        deadlines = Deadlines()
        self.forwarder = Forwarder(
            self.batcher,
            self.link,  # type: ignore[arg-type]
            self.journal,
            depth=DEPTH,
            room=ROOM,
            counts=self.counts,
            flush_log=FlushLog(get_logger()),
        )
        self.link.changed = self.forwarder.link_changed
        self.intake = Intake(
            self.forwarder,
            self.link,  # type: ignore[arg-type]
            self.journal,
            deadlines,
            mode=Ack.DISK,
            legacy=False,
            memory_max=64 << 20,
            counts=self.counts,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(self.journal.run)
            nursery.start_soon(deadlines.run)
            nursery.start_soon(self.forwarder.run)
            if hasattr(self.intake, "run"):
                nursery.start_soon(self.intake.run)
            self._ready.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    # what the script does ------------------------------------------------------------------------------------------

    def do(self, act: Callable[[], Got]) -> Got:
        """Do something on the event loop, and return when nothing moves any more by itself."""

        async def work() -> Got:
            result = act()
            await self._come_to_rest()
            return result

        return self._in_loop(work)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.do(lambda: self.clock.jump(seconds))

    def push(self, jobs: Sequence[Job], origin: Origin, *, linger: bool = True) -> None:
        """Jobs of one kind from one origin; `told` knows the outcome: `ok`, or the words of a refusal."""

        def done(verdicts: Verdicts) -> None:
            for place, job in enumerate(jobs):
                assert job.jid not in self.told, "answered twice"
                if verdicts is None or (not isinstance(verdicts, Refusal) and verdicts[place] == OK):
                    self.told[job.jid] = "ok"
                elif isinstance(verdicts, Refusal):
                    self.told[job.jid] = verdicts.message
                else:
                    self.told[job.jid] = verdicts[place].decode().removeprefix("-ERR ")

        self.do(lambda: self.intake.submit(jobs, origin, done, linger=linger))

    def answer(self, commands: int) -> None:
        """Upstream carries out so many commands and replies."""

        def act() -> None:
            for _ in range(commands):
                pipe = self.link.pipe
                if pipe is None or not pipe.owed:
                    return
                command, on_reply = pipe.owed[0]
                if self.upstream.kills(command):
                    self.link.down("connection reset")
                    return
                pipe.owed.popleft()
                on_reply(self.upstream.carry_out(command))
                if self.link.dropped is not None:
                    self.link.down(self.link.dropped)

        self.do(act)

    def refuse(self, reply: bytes, *, carried_out: bool = False) -> None:
        """Upstream answers one command with this, whatever it did with it."""

        def act() -> None:
            if self.link.pipe is None or not self.link.pipe.owed:
                return
            command, on_reply = self.link.pipe.owed.popleft()
            if carried_out:
                self.upstream.carry_out(command)
            on_reply(reply)
            if self.link.dropped is not None:
                self.link.down(self.link.dropped)

        self.do(act)

    def lose_link(self, carried_out: int) -> int:
        """The link is lost after upstream carried out so many of the commands on it; returns jobs now in doubt."""

        def act() -> int:
            if self.link.pipe is None:
                return 0
            owed = [command for command, _ in self.link.pipe.owed]
            for command in owed[:carried_out]:
                if self.upstream.kills(command):
                    break
                self.upstream.carry_out(command)
            before = self.counts.in_doubt
            self.link.down("connection reset")
            return self.counts.in_doubt - before

        return self.do(act)

    def crash(self, carried_out: int, into: Path) -> int:
        """End as by `kill -9`: the files as they are now go to `into`; returns jobs that were sent and not answered."""

        async def copy() -> int:
            owed = [command for command, _ in self.link.pipe.owed] if self.link.pipe is not None else []
            for command in owed[:carried_out]:
                if self.upstream.kills(command):
                    break
                self.upstream.carry_out(command)

            def take(_: Store) -> None:
                shutil.copytree(self.directory, into)

            await self.journal._ask(take)
            return sum(len(jids_of(command)) for command in owed)

        doubt = self._in_loop(copy)
        self.end()
        return doubt

    def end(self) -> None:
        """End this life, without a thought for its files."""
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def rows(self) -> list[Row]:
        """All that the journal holds."""

        async def read() -> list[Row]:
            rows: list[Row] = []
            while page := await self.journal.read(rows[-1].id if rows else 0):
                rows += page
            return rows

        return self._in_loop(read)

    def _in_loop(self, work: Callable[[], Awaitable[Got]]) -> Got:
        if self._failure is not None:
            raise self._failure
        return trio.from_thread.run(work, trio_token=self._token)

    async def _come_to_rest(self) -> None:
        for _ in range(4):
            await trio.testing.wait_all_tasks_blocked()
            await self.journal._ask(lambda _: None)
