"""The one connection to upstream that carries all batches, kept up for ever.

The link knows connections, not jobs: it dials, reconnects with jittered exponential backoff, watches that replies keep
coming, and measures the round trip. What is sent on it, and what a lost reply means, is the forwarder's business; it
learns of each change by `changed`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import trio

from sidecar.logs import defect, described
from sidecar.protocol.replies import ProtocolError, bulk_body, error_text
from sidecar.supervision import guarded
from sidecar.upstream.dial import Connected, Dialer, DialError
from sidecar.upstream.pipe import Pipe, PipeLost
from sidecar.upstream.refusals import Meaning, meaning

BACKOFF_FIRST, BACKOFF_MAX = 0.25, 15.0
"""Seconds before a reconnect. The longest is short enough that recovery is seen soon after the link is back."""
STABLE_AFTER = 5.0
"""Seconds that a connection must stand before the backoff starts from its first step again."""
PROBE_EVERY = 15.0
"""Seconds of silence after which the link is probed, so that a dead one is found before a producer's job is on it."""


class Link:
    """One pipelined connection to upstream.

    Args:
        dialer: makes the connections.
        changed: called when the link came up (a new `pipe`) or went down (`pipe` is None).
    """

    def __init__(self, dialer: Dialer, changed: Callable[[], None]) -> None:
        self._dialer = dialer
        self._changed = changed
        self._jitter = random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self.pipe: Pipe | None = None
        self.round_trip = 0.0
        """Seconds of the last measured round trip; 0 before the first."""
        self.version = ""
        """Upstream's version, as its INFO tells it; empty before the first answer."""
        self.down_reason: str | None = "not connected yet"
        """Why there is no connection, None while there is one."""
        self.retry_in = 0.0
        """Seconds until the next try, while there is no connection."""
        self.connects = 0
        """Connections made so far; all but the first are reconnects."""
        self._farewell: str | None = None
        self._scope: trio.CancelScope | None = None
        self._life: trio.CancelScope | None = None
        self._over = trio.Event()
        self._closed = False

    async def close(self) -> None:
        """End the connection and dial no more; returns when every command that is owed a reply was told None."""
        self._closed = True
        if self._life is not None:
            self._life.cancel()
            await self._over.wait()
        self.down_reason = "stopping"

    def drop(self, reason: str) -> None:
        """Give the present connection up: upstream said that it will not serve it. Nothing more is sent on it."""
        self._farewell = reason
        self.pipe = None
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> None:
        """Keep the link up until closed or cancelled."""
        if self._closed:
            return
        self._over = trio.Event()
        try:
            with trio.CancelScope() as self._life:
                await self._keep_up()
        finally:
            self._life = None
            self._over.set()

    async def _keep_up(self) -> None:
        delay = 0.0
        while True:
            await trio.sleep(delay)
            reason, stood = await self._one_connection()
            delay = BACKOFF_FIRST if stood >= STABLE_AFTER else min(max(delay * 2, BACKOFF_FIRST), BACKOFF_MAX)
            delay *= self._jitter.uniform(0.75, 1.25)
            self.down_reason = reason
            self.retry_in = delay
            guarded("link", self._changed)

    async def _one_connection(self) -> tuple[str, float]:
        """Dial and carry one connection to its end; returns why it ended, and how many seconds it stood."""
        try:
            connected = await self._dialer.dial()
        except DialError as error:
            return f"{error.phase}: {error.detail}", 0.0
        made = trio.current_time()
        self._farewell = None
        pipe = Pipe(connected, unasked=self._unasked)
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, pipe)
                    nursery.start_soon(self._carry, pipe, connected)
        except* PipeLost as group:
            if self._farewell is None:
                self._farewell = _words(group)
        except* Exception as group:
            defect("link", group, "it is made again")
            self._farewell = f"a defect, {described(group)}"
        finally:
            self.pipe = None
            self._scope = None
        return self._farewell or "closed", trio.current_time() - made

    async def _carry(self, pipe: Pipe, connected: Connected) -> None:
        sent = trio.current_time()

        def answered(reply: bytes | None) -> None:
            if reply is None:
                return
            text = error_text(reply)
            if text is not None and meaning(text.removeprefix("ERR ")) is Meaning.LINK:
                self.drop(text)
                return  # any other error is about what INFO looks at: Faktory's store, or one of its queues
            self.round_trip = trio.current_time() - sent
            self.version = _version(reply)
            self.pipe = pipe
            self.down_reason = None
            self.connects += 1
            guarded("link", self._changed)

        pipe.send(b"INFO\r\n", answered)
        await pipe.run()

    async def _watch(self, pipe: Pipe) -> None:
        """End a connection whose replies stopped; probe one that is silent."""
        while True:
            await trio.sleep(1.0)
            quiet = await pipe.silent_for()
            if pipe.owed:
                if quiet > pipe.patience:
                    raise PipeLost(f"no reply for {pipe.patience:.0f} s")
            elif quiet > PROBE_EVERY and self.pipe is pipe:
                self._probe(pipe)

    def _probe(self, pipe: Pipe) -> None:
        sent = trio.current_time()

        def answered(reply: bytes | None) -> None:
            if reply is not None:
                self.round_trip = trio.current_time() - sent

        pipe.send(b"INFO\r\n", answered)

    def _unasked(self, reply: bytes) -> None:
        self.drop(error_text(reply) or f"a reply that nobody asked for: {reply[:200]!r}")


class _ServerInfo(msgspec.Struct):
    faktory_version: str = ""


class _Info(msgspec.Struct):
    server: _ServerInfo = msgspec.field(default_factory=_ServerInfo)


_decode_info = msgspec.json.Decoder(_Info)


def _version(reply: bytes) -> str:
    """The version in an INFO reply (`server.faktory_version`), empty where it isn't told."""
    try:
        return _decode_info.decode(bulk_body(reply) or b"{}").server.faktory_version
    except (msgspec.DecodeError, ProtocolError):
        return ""


def _words(group: BaseExceptionGroup[PipeLost]) -> str:
    inner = group.exceptions[0]
    return _words(inner) if isinstance(inner, BaseExceptionGroup) else str(inner)
