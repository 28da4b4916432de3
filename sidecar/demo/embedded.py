"""An embedded Faktory: the server's side of the Faktory Work Protocol over a store in memory.

For the demo, the benchmark and the tests; nothing is kept when the process ends. Texts and states are those of
Faktory 1.10 (server/server.go of contribsys/faktory); the same contract tests run against both. `INFO` tells
what it is.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import trio

from sidecar.demo.commands import VERSION, ServerState, Worker, answer, error, fetch
from sidecar.demo.store import Store
from sidecar.demo.workunits import encode
from sidecar.protocol.lines import LineReader
from sidecar.protocol.replies import OK

HANDSHAKE_DEADLINE = 2.0  # seconds (server/server.go)
MAX_CONNECTIONS = 2000  # of one server, as many as Faktory has Redis connections
BEAT_EXPIRY = 60.0  # seconds without BEAT after which a worker's connections are closed
HOUSEKEEPING_PERIOD = 5.0  # seconds between two looks at schedules, reservations and heartbeats
LONGEST_LINE = 2**30  # bytes; Faktory itself has no bound
_CHUNK = 64 * 1024  # bytes asked of a socket at once


@dataclass(frozen=True, slots=True)
class Command:
    """What an interceptor is shown: one line of a client, before it is obeyed. `HELLO` counts as one."""

    connection: int  # number of the connection, counted from 1
    wid: str  # "" for a producer, and for HELLO
    verb: str
    line: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What an interceptor wants instead of the ordinary reply.

    Args:
        data: bytes to send, none by default.
        apply: obey the command all the same, only its own reply is dropped.
        close: close the connection afterwards.
    """

    data: bytes = b""
    apply: bool = False
    close: bool = False


Intercept = Callable[[Command], Awaitable[Reply | None]]


class _Hello(msgspec.Struct):
    hostname: str | None = None
    wid: str | None = None
    pwdhash: str | None = None
    username: str | None = None
    labels: list[str | None] | None = None
    pid: int | None = None
    v: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None


_hello = msgspec.json.Decoder(_Hello).decode


@dataclass(slots=True, eq=False)
class _Connection:
    number: int
    stream: trio.abc.Stream
    worker: Worker = field(default_factory=Worker)
    reader: LineReader = field(default_factory=lambda: LineReader(LONGEST_LINE))
    lines: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)

    async def receive(self) -> bool:
        """Waits for data and adds the lines that it completes; false: the client has sent all it will send."""
        data = await self.stream.receive_some(_CHUNK)
        self.lines += self.reader.feed(bytes(data))
        return bool(data)

    async def flush(self) -> None:
        """Sends the replies that are due."""
        if self.replies:
            data = b"".join(self.replies)
            self.replies.clear()
            await self.stream.send_all(data)


class EmbeddedFaktory:
    """A Faktory server in this process.

    Args:
        password: demanded of clients when given.
        iterations: rounds of the password hash, 1 or more; Faktory picks 4,000 to 8,095.
        tls: server context; plain TCP without.
        max_connections: more are refused after HELLO.
        version: what `INFO` tells.
        intercept: awaited before each command is obeyed; it may take its time, and returns None to go on, or a
            `Reply`.
        now: Unix time in seconds.
    """

    def __init__(
        self,
        *,
        password: str = "",
        iterations: int | None = None,
        tls: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        version: str = VERSION,
        intercept: Intercept | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store = Store(now=now)
        self.state = ServerState(self.store, version)
        self.port = 0
        self._password = password
        self._iterations = iterations
        self._tls = tls
        self._max_connections = max_connections
        self._intercept = intercept
        self._accepted = 0

    @property
    def url(self) -> str:
        """Where it listens, with the password, as `FAKTORY_URL` has it."""
        scheme = "tcp+tls" if self._tls else "tcp"
        password = f":{self._password}@" if self._password else ""
        return f"{scheme}://{password}127.0.0.1:{self.port}"

    async def run(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until it is cancelled; the jobs stay for the next `run`. Reports the port it is bound to."""
        self.state.started = trio.current_time()
        listeners = await trio.open_tcp_listeners(port, host=host)
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_house)
            await nursery.start(trio.serve_listeners, self._serve, listeners)
            task_status.started(self.port)

    def stored(self, queue: str = "default") -> list[dict[str, Any]]:
        """The jobs that wait in a queue, oldest first, as a FETCH would give them."""
        return [msgspec.json.decode(encode(job)) for job in self.store.queues.get(queue, ())]

    def stored_sorted(self, name: str = "scheduled") -> list[dict[str, Any]]:
        """The jobs of a set (`scheduled`, `retries`, `dead`), the earliest first."""
        entries = self.store.sets[name]
        return [msgspec.json.decode(payload) for payload in sorted(entries, key=entries.__getitem__)]

    def signal_worker(self, wid: str, state: str) -> None:
        """What the buttons of Faktory's web page do: `quiet` or `terminate`. KeyError: no such worker."""
        self.state.workers[wid].move(state)

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(HOUSEKEEPING_PERIOD)
            self.store.tick()
            for worker in list(self.state.workers.values()):
                if trio.current_time() - worker.heard > BEAT_EXPIRY:
                    del self.state.workers[worker.wid]
                    for stream in worker.streams:
                        await trio.aclose_forcefully(stream)

    async def _serve(self, plain: trio.SocketStream) -> None:
        self._accepted += 1
        stream: trio.abc.Stream = plain
        if self._tls is not None:
            stream = trio.SSLStream(plain, self._tls, server_side=True)
        try:
            await self._converse(_Connection(self._accepted, stream))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client went away, or its worker was reaped: nobody is left to be told
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(self, connection: _Connection) -> None:
        welcome = False
        try:
            with trio.move_on_after(HANDSHAKE_DEADLINE):
                welcome = await self._shake_hands(connection)
            if welcome:
                await self._serve_client(connection)
        finally:
            self._forget(connection)

    async def _serve_client(self, connection: _Connection) -> None:
        state = self.state
        state.connections += 1
        try:
            if state.connections > self._max_connections:
                await connection.stream.send_all(error(f"too many connections: {state.connections}"))
            else:
                await self._obey_all(connection)
        finally:
            state.connections -= 1

    async def _shake_hands(self, connection: _Connection) -> bool:
        """Greets a client and checks its HELLO; false: it is shown the door."""
        stream = connection.stream
        rounds = self._iterations or random.randint(4000, 8095)  # noqa: S311 - not what keeps the password safe
        salt = f"{random.getrandbits(63):x}"
        greeting = f'{{"v":2,"i":{rounds},"s":"{salt}"}}' if self._password else '{"v":2}'
        await stream.send_all(f"+HI {greeting}\r\n".encode())
        while not connection.lines:
            if not await connection.receive():
                return False
        line = connection.lines.pop(0)
        if not line.startswith(b"HELLO {"):
            return False
        try:
            hello = _hello(line[5:])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        reply = None
        if self._intercept is not None:
            reply = await self._intercept(Command(connection.number, "", "HELLO", line))
        if reply is not None and not reply.apply:
            await stream.send_all(reply.data)
            return not reply.close
        if self._password:
            wanted = _hashed(self._password + salt, rounds if (hello.v or 0) >= 2 else 1)
            if not hmac.compare_digest((hello.pwdhash or "").encode(), wanted):
                await stream.send_all(b"-ERR Invalid password\r\n")
                return False
        connection.worker = Worker(hello.wid or "", heard=trio.current_time())
        if hello.wid:
            self.state.workers.setdefault(hello.wid, connection.worker).streams.append(stream)
        await stream.send_all(OK if reply is None else reply.data)
        return reply is None or not reply.close

    def _forget(self, connection: _Connection) -> None:
        """A worker is gone when its last connection is."""
        first = self.state.workers.get(connection.worker.wid)
        if first is not None and connection.stream in first.streams:
            first.streams.remove(connection.stream)
            if not first.streams:
                del self.state.workers[first.wid]

    async def _obey_all(self, connection: _Connection) -> None:
        """Obeys the lines of a connection in their order; what came together is answered together."""
        while True:
            lines, connection.lines = connection.lines, []
            for line in lines:
                if await self._obey(connection, line):
                    await connection.flush()
                    return
            await connection.flush()
            if not await connection.receive():
                return

    async def _obey(self, connection: _Connection, line: bytes) -> bool:
        """Obeys one command and notes its reply; true: close the connection."""
        verb = line.partition(b" ")[0]
        wanted = None
        if self._intercept is not None:
            await connection.flush()
            command = Command(connection.number, connection.worker.wid, verb.decode("utf-8", "replace"), line)
            wanted = await self._intercept(command)
            if wanted is not None and not wanted.apply:
                connection.replies.append(wanted.data)
                return wanted.close
        if verb == b"END":
            return True
        if verb == b"FETCH":
            await connection.flush()
            reply = await fetch(self.state, connection.worker, line)
        else:
            reply = answer(self.state, line)
        connection.replies.append(reply if wanted is None else wanted.data)
        return wanted is not None and wanted.close


def _hashed(text: str, rounds: int) -> bytes:
    """SHA-256 applied `rounds` times, in hexadecimal."""
    digest = hashlib.sha256(text.encode()).digest()
    for _ in range(rounds - 1):
        digest = hashlib.sha256(digest).digest()
    return digest.hex().encode()
