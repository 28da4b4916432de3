"""The Faktory Work Protocol with one local client."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from functools import partial

import msgspec
import trio

from sidecar.budget import MEDIUM, Budget, NoRoom
from sidecar.errors import Refusal
from sidecar.intake import ANSWER_WITHIN, Deadlines, Intake, Verdicts
from sidecar.jobs import Origin
from sidecar.logs import FloodLog
from sidecar.metrics import Counts
from sidecar.producers.channel import Channel, PlainChannel
from sidecar.producers.handshake import Handshake
from sidecar.producers.passing import PassedCommand, Way
from sidecar.producers.replies import ReplyQueue
from sidecar.producers.riders import Desk, Rider
from sidecar.protocol.handshake import Hello
from sidecar.protocol.jobs import Job, examine, examine_array, stamp
from sidecar.protocol.lines import LineReader, LineTooLong
from sidecar.protocol.pushes import STAMP_STEP
from sidecar.protocol.replies import OK, bulk, error_text
from sidecar.upstream.dial import DialError
from sidecar.upstream.side import GOODBYE, SideConnection
from sidecar.upstream.tunnel import Tunnel, Tunnels

MAX_OWED = 10_000
"""Commands that a pipelining client may have unanswered before it isn't read from."""
MAX_HELD = 4 << 20
"""Bytes of commands that a pipelining client may have unanswered before it isn't read from."""
MAX_UNSENT = 1 << 20
"""Bytes of replies that a client may leave unread before it isn't read from."""
SWALLOW_FOR, SWALLOW_PAUSE = 5.0, 0.2
"""Seconds that a client which is refused in the middle of a line may go on sending, in all and without a byte."""

LEND_PATIENCE = 0.05
"""Seconds that the replies to a producer's pushes may take; after that its connection isn't lent this time."""

ALREADY_THERE = 0.02
"""Seconds within which bytes are read that had come before."""

EMPTY_MAP = bulk(b"{}")


class Next(enum.Enum):
    """What follows after some commands."""

    GO = "go on reading"
    END = "the client said good-bye"
    TUNNEL = "it wants jobs: it needs an upstream connection of its own"


@dataclass(frozen=True, slots=True)
class Services:
    """What every connection works with."""

    intake: Intake
    side: SideConnection
    deadlines: Deadlines
    counts: Counts
    floods: FloodLog
    password: str | None
    desk: Desk | None
    tunnels: Tunnels
    budget: Budget
    connections: set[Connection] = field(default_factory=set)


class Connection:
    """One client, from its greeting to its end.

    Args:
        channel: its bytes.
        peer: its address, for the log.
    """

    def __init__(self, channel: Channel, services: Services, peer: str) -> None:
        self._channel = channel
        self._services = services
        self._peer = peer
        self._lines = LineReader()
        self._early: list[bytes] = []
        self._replies = ReplyQueue(channel)
        self._origin: Origin = services.intake.origin()
        self._way: Way = services.side
        self._hello = Hello({})
        self._tunnel: Tunnel | None = None
        self._arrived = trio.current_time()  # when the commands came that are being carried out
        self._rider: Rider | None = None
        self._plain = False  # the last that came was nothing but certain pushes
        self._passed = 0  # commands on their way to upstream, unanswered
        self._share = services.budget.share()  # what came since nothing was owed

    async def run(self) -> None:
        """Serve the client until one side ends the connection."""
        self._services.connections.add(self)
        try:
            await self._serve()
        finally:
            self._services.connections.discard(self)
            self._share.close()

    def too_late(self) -> bool:
        """Hang up on a client that waited too long: it would take the reply for its next command's. True: it did."""
        if late := self._replies.owed > 0 or self._channel.unread:
            self._channel.hang_up()  # what it has sent is carried out
        return late

    async def _serve(self) -> None:
        services = self._services
        handshake = Handshake(self._channel, self._lines, services.password, services.floods, self._peer)
        hello = await handshake.run()
        if hello is None:
            return
        self._hello, self._early, self._arrived = hello, handshake.early, handshake.arrived
        if self._hello.wid:
            self._origin = self._services.intake.origin(self._hello.wid)
            if not await self._open_tunnel():
                return
        self._channel.write(OK)
        if self._tunnel is None:
            await self._serve_producer()
        if self._tunnel is not None:
            await self._serve_consumer(self._tunnel)

    # Roles ---------------------------------------------------------------------------------------------------------

    async def _serve_producer(self) -> None:
        """Serve a client that pushes; it becomes a consumer by its first FETCH."""
        desk = self._services.desk
        if desk is not None and isinstance(self._channel, PlainChannel):
            self._rider = desk.rider(self._channel, self._replies, self._origin)
        self._services.counts.producers += 1
        try:
            while await self._commands() is Next.TUNNEL:
                await self._replies.at_most(0)
                if await self._open_tunnel():
                    return
                del self._early[0]  # it has been answered; a producer's connection doesn't end with upstream's
        finally:
            self._services.counts.producers -= 1

    async def _serve_consumer(self, tunnel: Tunnel) -> None:
        """Serve a client beside its upstream connection, until either ends."""

        async def until_upstream_ends() -> None:
            await tunnel.run()
            nursery.cancel_scope.cancel()

        self._services.counts.consumers += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_upstream_ends)
                await self._commands()
                await trio.sleep(GOODBYE)
                nursery.cancel_scope.cancel()
        finally:
            self._services.counts.consumers -= 1

    async def _open_tunnel(self) -> bool:
        """Open the upstream connection for this client's HELLO; where that fails the client is told."""
        why = "no answer in time"

        async def open_it() -> None:
            nonlocal why
            try:
                self._tunnel = await self._services.tunnels.open(self._hello, self._channel.write)
            except DialError as error:
                why = f"{error.phase}: {error.detail}"

        with trio.move_on_at(self._arrived + ANSWER_WITHIN):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_it_leaves, nursery.cancel_scope)
                await open_it()
                nursery.cancel_scope.cancel()
        if self._tunnel is None:
            self._channel.write(Refusal(f"Faktory can't be reached ({why})").line())
            await self._channel.flushed()
            return False
        self._way = self._tunnel
        return True

    async def _until_it_leaves(self, scope: trio.CancelScope) -> None:
        """Give up opening for a client that has left and wants nothing: it comes again, and counts upstream."""
        if self._early or self._lines.pending:
            return
        if data := await self._channel.receive():
            self._early, self._arrived = self._lines.feed(data), trio.current_time()  # less than the longest line
        else:
            scope.cancel()

    # Commands ------------------------------------------------------------------------------------------------------

    async def _commands(self) -> Next:
        """Take commands until END, the peer's end, or a line without end; then answer what is owed."""
        lines, self._early = self._early, []
        while True:
            if lines:
                next_step = await self._take(lines)
                lines = []  # they are held by whom they were handed to
                if next_step is Next.TUNNEL:
                    return next_step
                if next_step is Next.END:
                    break
                if self._replies.owed > MAX_OWED:
                    await self._replies.at_most(MAX_OWED // 2)
                if self._share.size > MAX_HELD:
                    await self._replies.at_most(0)
                if self._channel.unsent > MAX_UNSENT:
                    await self._until_it_reads()
            if self._share.size and not self._replies.owed:
                self._share.shrink_to(self._lines.pending + (self._tunnel.unsent if self._tunnel is not None else 0))
            try:
                data = await self._receive()
                if not data:
                    break
                self._share.grow(len(data))
                lines = self._lines.feed(data)
            except (LineTooLong, NoRoom) as error:
                await self._refuse_line(error)
                await self._replies.at_most(0)
                await self._swallow()
                break
        await self._replies.at_most(0)
        if self._tunnel is not None:
            self._tunnel.end()
        await self._channel.flushed()
        return Next.END

    async def _until_it_reads(self) -> None:
        """Faktory's errors repeat some commands whole: who doesn't read one, while others wait for room, is cut off."""
        try:
            await self._share.more(self._channel.flushed)
        except NoRoom:
            self._channel.close()
        self._share.shrink_to(self._share.size)  # that was no command: its time doesn't count for the next

    async def _receive(self) -> bytes:
        """The next bytes; while a producer has nothing to say but plain pushes these are taken elsewhere."""
        if self._rider is not None and self._plain and not self._lines.pending and self._tunnel is None:
            with trio.move_on_after(LEND_PATIENCE):
                await self._replies.at_most(0)
            if not self._replies.owed:
                data = await self._rider.receive()
                if data is None:
                    return await self._receive_after_a_stall(self._rider.stalled_since)
                self._arrived = trio.current_time()
                return data
        if self._lines.pending:
            data = await self._share.more(self._channel.receive)
        else:
            data = await self._channel.receive()
        self._arrived = trio.current_time()
        return data

    async def _receive_after_a_stall(self, since: float) -> bytes:
        """The next bytes; those that are there have been waiting since the thread that was to read them got stuck."""
        with trio.move_on_after(ALREADY_THERE):
            data = await self._channel.receive()
            self._arrived = since
            return data
        data = await self._channel.receive()
        self._arrived = trio.current_time()
        return data

    async def _refuse_line(self, error: LineTooLong | NoRoom) -> None:
        """Carry out what came before a line that is too long, or has no room, and refuse it."""
        self._lines = LineReader()
        self._share.close()
        if isinstance(error, NoRoom):
            self._services.intake.refuse("full")
            self._replies.slot().fill(Refusal(f"not sent: {error}", retry=True).line())
        elif await self._take(error.complete) is Next.GO:
            self._services.intake.refuse("line_too_long")
            self._replies.slot().fill(Refusal(f"line too long: {error}").line())

    async def _swallow(self) -> None:
        """Read on for a while and throw it away: a close with bytes unread is a reset, and may lose the last reply."""
        with trio.move_on_after(SWALLOW_FOR):
            more = True
            while more:
                more = False
                with trio.move_on_after(SWALLOW_PAUSE):
                    more = bool(await self._channel.receive())

    async def _take(self, lines: list[bytes]) -> Next:
        """Carry out complete lines in their order, as far as they go."""
        clock = time.time()
        self._plain = True
        run: list[Job] = []  # certain jobs pushed one after the other: they share a commit and a slot
        for index in range(len(lines)):
            line, lines[index] = lines[index], b""  # a large one is held by nobody else
            now = stamp(clock + index * STAMP_STEP)
            if line.startswith(b"PUSH "):
                payload, line = line[5:], b""
                if (job := examine(payload, now)) is not None:
                    self._plain &= not job.confirmed
                    if run and run[0].confirmed is not job.confirmed:
                        await self._push(run)
                        run = []
                    run.append(job)
                    continue
                line = b"PUSH " + payload
            self._plain = False
            if run:
                await self._push(run)
                run = []
            verb = line.split(b" ", 1)[0]
            if verb == b"PUSHB" and (jobs := self._certain(line, now)):
                await self._push(jobs, bulk=True)
            elif verb == b"END":
                return Next.END
            elif self._tunnel is None and _needs_tunnel(verb, line):
                self._early = [line, *lines[index + 1 :]]
                return Next.TUNNEL
            else:
                self._pass(line, verb)
        if run:
            await self._push(run)
        return Next.GO

    def _certain(self, line: bytes, now: bytes) -> list[Job] | None:
        """The jobs of a PUSHB when all of them are certain and none wants a verdict of its own."""
        jobs = examine_array(line[6:], now)
        if jobs and any(job.confirmed for job in jobs):
            return None
        return jobs

    async def _push(self, jobs: list[Job], *, bulk: bool = False) -> None:
        """Hand jobs to the intake, behind the commands that were passed before."""
        if self._passed:
            await self._replies.at_most(0)
        intake = self._services.intake
        if (refusal := await intake.admit(jobs, since=self._arrived)) is not None:
            self._replies.slot().fill(refusal.line() * (1 if bulk else len(jobs)))
            return
        if bulk:
            slot = self._replies.slot()

            def answer(verdicts: Verdicts) -> None:
                slot.fill(_map_reply(jobs, verdicts))

            intake.submit(jobs, self._origin, answer, linger=False, since=self._arrived)
            return
        slot = self._replies.slot(len(jobs))

        def done(verdicts: Verdicts) -> None:
            if verdicts is None:
                slot.fill(OK if len(jobs) == 1 else OK * len(jobs))
            elif isinstance(verdicts, Refusal):
                slot.fill(verdicts.line() * len(jobs))
            else:
                slot.fill(b"".join(verdicts))

        intake.submit(jobs, self._origin, done, since=self._arrived)

    def _let_go(self, size: int) -> None:
        """So many bytes are the shared connection's now: others need not wait until Faktory has judged them."""
        self._share.shrink_to(max(self._lines.pending, self._share.size - size))

    def _pass(self, line: bytes, verb: bytes) -> None:
        """Send a command to upstream as it is."""
        services = self._services
        slot = self._replies.slot()
        waits = verb != b"FETCH"
        self._passed += 1
        services.counts.passing += waits

        def answer(reply: bytes) -> None:
            self._passed -= 1
            services.counts.passing -= waits
            slot.fill(reply)

        command = PassedCommand(
            line,
            answer,
            self._way,
            intake=services.intake,
            deadlines=services.deadlines,
            since=self._arrived,
        )
        if not waits:
            # A job may come with the late reply: a client that sees the connection end knows that it has none.
            command.too_late = self._channel.close
        if len(line) > MEDIUM and self._tunnel is None:
            command.handed_over = partial(self._let_go, len(line))
        services.counts.take("fwp", "passed", 1)
        command.start(verb, self._origin)


def _needs_tunnel(verb: bytes, line: bytes) -> bool:
    """Whether a command must not go over the connection that producers share.

    A FETCH blocks it. And Faktory (1.10.0) puts strings of some commands into its error texts after it has decoded
    them: a line break in one makes one reply look like several, which would shift the replies of all others.
    PUSH and PUSHB are safe: what their errors repeat is quoted.
    """
    return verb == b"FETCH" or (verb not in (b"PUSH", b"PUSHB") and b"\\" in line)


def _map_reply(jobs: list[Job], verdicts: Verdicts) -> bytes:
    """The reply to a PUSHB: a map from the refused jobs to their error texts, as Faktory writes it."""
    if verdicts is None:
        return EMPTY_MAP
    if isinstance(verdicts, Refusal):
        return verdicts.line()
    refused: dict[str, str] = {}
    for job, reply in zip(jobs, verdicts, strict=True):
        if reply != OK:
            refused[job.jid] = (error_text(reply) or "").removeprefix("ERR ")
    body = msgspec.json.encode(refused, order="sorted")
    for sign, escaped in _GO_ESCAPES:
        body = body.replace(sign, escaped)
    return bulk(body)


_GO_ESCAPES = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))
"""What Go's encoder escapes in strings beside the usual."""
