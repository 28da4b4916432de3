"""The forwarder and the intake on a link whose every reply the test writes, in virtual time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

from sidecar.config import Ack
from sidecar.errors import Refusal
from sidecar.forwarder import Forwarder
from sidecar.forwarder.batching import Batcher, Limits
from sidecar.intake import Deadlines, Intake, Verdicts
from sidecar.jobs import Origin
from sidecar.logs import FlushLog, get_logger
from sidecar.metrics import Counts
from sidecar.protocol.jobs import Job
from sidecar.protocol.replies import OK

ALL = b"$2\r\n{}\r\n"


class ScriptedPipe:
    """Keeps what is sent until the test answers."""

    def __init__(self) -> None:
        self.lost: str | None = None
        self.owed: deque[tuple[bytes, Callable[[bytes | None], None]]] = deque()

    def send(self, command: bytes, on_reply: Callable[[bytes | None], None]) -> None:
        """As `Pipe.send`."""
        assert self.lost is None
        self.owed.append((command, on_reply))


class ScriptedLink:
    """As `Link`, going up and down when the test says so."""

    def __init__(self) -> None:
        self.pipe: ScriptedPipe | None = None
        self.connection: ScriptedPipe | None = None
        self.down_reason: str | None = "not connected yet"
        self.round_trip = 0.0
        self.version = ""
        self.dropped: str | None = None
        self.changed: Callable[[], None] = lambda: None

    def drop(self, reason: str) -> None:
        """The real link's end follows in a turn or two of the event loop; here when the test says `down`."""
        self.dropped = reason
        self.pipe = None

    def up(self) -> None:
        """A new connection."""
        self.pipe = self.connection = ScriptedPipe()
        self.down_reason = self.dropped = None
        self.changed()

    def down(self, reason: str = "connection reset by peer") -> None:
        """The connection ends with all that is owed on it."""
        assert self.connection is not None
        self.connection.lost = reason
        while self.connection.owed:
            self.connection.owed.popleft()[1](None)
        self.pipe, self.connection, self.down_reason = None, None, reason
        self.changed()


@dataclass
class World:
    """What a test has in its hands."""

    link: ScriptedLink
    forwarder: Forwarder
    intake: Intake
    batcher: Batcher
    counts: Counts
    deadlines: Deadlines
    told: dict[str, str] = field(default_factory=dict)
    """jid -> `OK` or the words of its refusal, once its producer has them."""

    @property
    def owed(self) -> deque[tuple[bytes, Callable[[bytes | None], None]]]:
        """The commands that are owed a reply."""
        return self.link.connection.owed if self.link.connection is not None else deque()

    @property
    def sent(self) -> list[list[str]]:
        """The jids of each command that is owed a reply."""
        return [jids(command) for command, _ in self.owed]

    @property
    def sent_verbs(self) -> list[str]:
        """The verb of each command that is owed a reply."""
        return [command.split()[0].decode() for command, _ in self.owed]

    def push(self, *names: str, origin: Origin | None = None, size: int = 0, **options: Any) -> Origin:
        """Jobs of one command."""
        confirmed = options.pop("confirmed", False)
        jobs = [Job(name, json.dumps({"jid": name, "args": ["x" * size]}).encode(), confirmed) for name in names]
        origin = origin or self.intake.origin()

        def done(verdicts: Verdicts) -> None:
            for place, name in enumerate(names):
                assert name not in self.told, "answered twice"
                if isinstance(verdicts, Refusal):
                    self.told[name] = verdicts.message
                else:
                    reply = OK if verdicts is None else verdicts[place]
                    self.told[name] = reply[1:].rstrip().decode().removeprefix("ERR ")

        self.intake.submit(jobs, origin, done, **options)
        return origin

    def answer(self, reply: bytes) -> None:
        """The reply to the oldest command."""
        self.owed.popleft()[1](reply)


def jids(command: bytes) -> list[str]:
    """The jobs of a `PUSH` or `PUSHB`."""
    verb, _, body = command.partition(b" ")
    found = json.loads(body)
    return [job["jid"] for job in (found if verb == b"PUSHB" else [found])]


@asynccontextmanager
async def world(
    *,
    mode: Ack = Ack.MEMORY,
    legacy: bool = False,
    jobs: int = 3,
    size: int = 1 << 20,
    linger: float = 0.05,
    depth: int = 4,
    room: int = 1 << 25,
    memory_max: int = 1 << 26,
) -> AsyncIterator[World]:
    """Everything between an edge and the link, until the block ends."""
    counts, deadlines, link = Counts(), Deadlines(), ScriptedLink()
    batcher = Batcher(Limits(jobs, size, linger))
    forwarder = Forwarder(
        batcher,
        link,  # type: ignore[arg-type]
        None,
        depth=depth,
        room=room,
        counts=counts,
        flush_log=FlushLog(get_logger()),
    )
    link.changed = forwarder.link_changed
    intake = Intake(
        forwarder,
        link,  # type: ignore[arg-type]
        None,
        deadlines,
        mode=mode,
        legacy=legacy,
        memory_max=memory_max,
        counts=counts,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        nursery.start_soon(forwarder.run)
        await trio.testing.wait_all_tasks_blocked()
        yield World(link, forwarder, intake, batcher, counts, deadlines)
        nursery.cancel_scope.cancel()
