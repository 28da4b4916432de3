"""The upstream connection that belongs to one consumer.

Opened with the consumer's own HELLO, never shared and never silently dialled again: a worker's state (quiet, terminate)
hangs on its connections, in the order in which they were opened. When it ends, the consumer's connection ends.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.protocol.handshake import Hello
from sidecar.upstream.dial import Dialer
from sidecar.upstream.pipe import Pipe, PipeLost
from sidecar.upstream.side import Answer, Passed


class Tunnel:
    """One consumer's way to upstream.

    Args:
        pipe: a connection of its own, after the handshake.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def send(self, line: bytes, answer: Answer) -> Passed:
        """Pass a command; when the tunnel is lost before the reply there is none: the connection ends with it."""
        passed = Passed(line, answer)
        passed.sent = True

        def answered(reply: bytes | None) -> None:
            if reply is not None:
                answer(reply)

        self._pipe.send(line + b"\r\n", answered)
        return passed

    def end(self) -> None:
        """The consumer has left: let upstream know before the connection closes."""
        self._pipe.write(b"END\r\n")

    async def run(self) -> None:
        """Carry bytes until upstream ends the connection."""
        try:
            await self._pipe.run()
        except PipeLost:
            return


async def open_tunnel(dialer: Dialer, hello: Hello, unasked: Callable[[bytes], None]) -> Tunnel:
    """Connect to upstream as this consumer.

    Args:
        unasked: called with what upstream says without being asked (`too many connections`), before it ends.

    Raises:
        DialError: it can't be reached, or refuses.
    """
    address = dialer.address
    connected = await dialer.dial(lambda greeting: hello.for_upstream(greeting, dialer.password, address.username))
    return Tunnel(Pipe(connected, unasked=unasked))
