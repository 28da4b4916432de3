"""The connection that all producers share for commands that are passed through as they are.

It is made when first needed and kept while it is used. A command that could not be sent is told so; one that was sent
and whose connection was lost is in doubt; neither is ever sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from sidecar.errors import Refusal
from sidecar.protocol.replies import error_text
from sidecar.upstream.dial import Dialer, DialError
from sidecar.upstream.pipe import Pipe, PipeLost

IDLE_END = 60.0
"""Seconds without a command after which the connection is ended: it costs upstream one of its 2,000."""
UNSENT = 1024 * 1024
"""Bytes that may wait in the connection: a command behind them is not sent, and can be dropped."""
GOODBYE = 1.0
"""Seconds that upstream has to close a connection after our END."""

Answer = Callable[[bytes], None]
LOST_IN_DOUBT = Refusal(
    "in doubt: the connection to Faktory was lost before the reply; the command may have been carried out"
)


class Passed:
    """One command on its way: `sent` tells what a deadline may say of it; `drop()` takes an unsent one back."""

    __slots__ = ("answer", "dropped", "line", "sent")

    def __init__(self, line: bytes, answer: Answer) -> None:
        self.line = line
        self.answer = answer
        self.sent = False
        self.dropped = False

    def drop(self) -> None:
        """Nobody waits for it any more; it is not to be sent."""
        self.dropped = True
        self.line = b""


class SideConnection:
    """Carries passed-through commands, pipelined, over one connection of its own."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._pipe: Pipe | None = None
        self._waiting: deque[Passed] = deque()
        self._wanted = trio.Event()

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent, whoever still waits for their reply."""
        waiting = sum([len(passed.line) for passed in self._waiting])
        return waiting + (self._pipe.unsent if self._pipe is not None else 0)

    def send(self, line: bytes, answer: Answer) -> Passed:
        """Pass a command line (without its end); `answer` gets the raw reply, or an `-ERR` of ours, once."""
        passed = Passed(line, answer)
        self._waiting.append(passed)
        self._wanted.set()
        self._put_waiting()
        return passed

    async def run(self) -> None:
        """Dial when there is something to send; until cancelled."""
        while True:
            if not self._waiting:
                self._wanted = trio.Event()
                await self._wanted.wait()
            try:
                connected = await self._dialer.dial()
            except DialError as error:
                self._refuse_waiting(f"not sent: Faktory can't be reached ({error.phase}: {error.detail})")
                continue
            await self._carry(Pipe(connected, unasked=self._unasked, sent=self._put_waiting))

    async def _carry(self, pipe: Pipe) -> None:
        self._pipe = pipe
        try:
            self._put_waiting()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, pipe)
                nursery.start_soon(pipe.run)
        except* PipeLost:
            pass  # who was owed a reply has been told by the pipe, and what waits goes over the next one
        finally:
            self._pipe = None

    def _put_waiting(self) -> None:
        """Put what waits into the connection, as far as it takes it."""
        pipe = self._pipe
        while self._waiting and pipe is not None and pipe.lost is None and pipe.unsent < UNSENT:
            passed = self._waiting.popleft()
            if not passed.dropped:
                self._put(pipe, passed)

    def _put(self, pipe: Pipe, passed: Passed) -> None:
        passed.sent = True

        def answered(reply: bytes | None) -> None:
            passed.answer(LOST_IN_DOUBT.line() if reply is None else reply)

        line, passed.line = passed.line, b""
        pipe.send([line, b"\r\n"], answered)

    async def _watch(self, pipe: Pipe) -> None:
        while True:
            await trio.sleep(1.0)
            quiet = await pipe.silent_for()
            if pipe.owed and quiet > pipe.patience:
                raise PipeLost(f"no reply for {pipe.patience:.0f} s")
            if not pipe.owed and quiet > IDLE_END:
                self._pipe = None  # a command that comes now goes over the next one
                pipe.write(b"END\r\n")
                await trio.sleep(GOODBYE)
                raise PipeLost("idle")

    def _unasked(self, reply: bytes) -> None:
        """Upstream refuses the connection as such (`too many connections`): no command of ours was read."""
        raise PipeLost(error_text(reply) or "an unasked reply")

    def _refuse_waiting(self, message: str) -> None:
        line = Refusal(message, retry=True).line()
        for passed in _drained(self._waiting):
            if not passed.dropped:
                passed.answer(line)


def _drained(queue: deque[Passed]) -> list[Passed]:
    items = list(queue)
    queue.clear()
    return items
