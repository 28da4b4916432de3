"""Accepts local connections."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import trio

from sidecar.config import Bind, host_port
from sidecar.listening import open_listeners
from sidecar.logs import defect
from sidecar.producers.channel import Channel, PlainChannel, Spawn, TlsChannel
from sidecar.producers.connection import Connection, Services
from sidecar.producers.handshake import HANDSHAKE_WITHIN
from sidecar.supervision import contained, supervised

OUT_OF_FILES_PAUSE = 0.1
"""Seconds without accepting after the process ran out of file descriptors."""
LAST_REPLY_WITHIN = 1.0
"""Seconds that a client has to take the last reply before its connection is closed; with TLS it isn't sent at once."""

Endpoint = socket.socket
"""A listening socket."""


class Listener:
    """The local Faktory endpoint.

    Args:
        binds: where to listen.
        tls: for the local endpoint, None for plain TCP.

    Raises:
        StartError: an address can't be bound.
    """

    def __init__(self, binds: Sequence[Bind], services: Services, *, tls: ssl.SSLContext | None) -> None:
        self._services = services
        self._tls = tls
        self._sockets = [sock for sock, _ in open_listeners(binds, "SIDECAR_LISTEN")]

    @property
    def addresses(self) -> list[str]:
        """What was bound, `127.0.0.1:7419`."""
        return [host_port(*sock.getsockname()[:2]) for sock in self._sockets]

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for sock in self._sockets:
                    nursery.start_soon(supervised, "accept", partial(self._accept, sock, nursery))
        finally:
            for sock in self._sockets:
                sock.close()

    async def _accept(self, listening: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    continue  # the client has left before it was accepted
                self._services.floods.warning(
                    trio.current_time(), "accept_failed", message=f"A connection can't be accepted: {error.strerror}"
                )
                await trio.sleep(OUT_OF_FILES_PAUSE)
                continue
            sock.setblocking(False)
            with suppress(OSError):  # macOS refuses options of a connection that was reset meanwhile
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            nursery.start_soon(self._serve, sock, host_port(*address[:2]), nursery)

    async def _serve(self, sock: socket.socket, peer: str, nursery: trio.Nursery) -> None:
        """One connection; whatever goes wrong in it ends it alone."""
        channel: Channel | None = None

        def spawn(work: Callable[[], Awaitable[None]]) -> None:
            nursery.start_soon(contained, "connection", work)

        try:
            if self._tls is None:
                channel = PlainChannel(sock, spawn)
            else:
                channel = await self._start_tls(sock, self._tls, spawn, peer)
            if channel is not None:
                await Connection(channel, self._services, peer).run()
                with trio.move_on_after(LAST_REPLY_WITHIN):
                    await channel.flushed()
        except* Exception as group:
            defect("connection", group, f"that of {peer} is closed")
        finally:
            if channel is not None:
                channel.close()
            else:
                sock.close()

    async def _start_tls(self, sock: socket.socket, context: ssl.SSLContext, spawn: Spawn, peer: str) -> Channel | None:
        """The TLS side of a new connection; None when the client doesn't come to an end with it."""
        stream = trio.SSLStream(
            trio.SocketStream(trio.socket.from_stdlib_socket(sock)), context, server_side=True, https_compatible=True
        )
        try:
            with trio.fail_after(HANDSHAKE_WITHIN):
                await stream.do_handshake()
        except trio.TooSlowError:
            self._report_no_tls(peer, "it waits for a greeting without TLS")
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
                self._report_no_tls(peer, (cause.reason or str(cause)).lower().replace("_", " "))
        else:
            return TlsChannel(stream, spawn)
        return None

    def _report_no_tls(self, peer: str, why: str) -> None:
        """One clear record for a client that can't make a TLS connection; those that just leave are silent."""
        self._services.floods.warning(
            trio.current_time(),
            "stranger",
            message=f"A client's TLS handshake failed ({why}): this endpoint speaks TLS, use tcp+tls:// in FAKTORY_URL",
            key=f"no TLS {peer.rpartition(':')[0]}",
            peer=peer,
        )
