"""Sockets that listen, for all edges."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

from sidecar.config import Bind, host_port
from sidecar.errors import StartError

BACKLOG: Final = 4096
"""Connections that wait to be accepted: clients dial for a second, in bursts."""


class CannotListen(StartError):
    """An address can't be bound; `error` is the system's."""

    def __init__(self, address: str, setting: str, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        super().__init__(f"{setting}: cannot listen on {address}: {reason}")
        self.error = error


def open_listeners(binds: Sequence[Bind], setting: str) -> list[tuple[socket.socket, Bind]]:
    """Binds every address; nothing is accepted yet.

    `localhost` is both loopbacks, on one port, the second left out where the machine has none.

    Args:
        setting: its name, for the message.

    Raises:
        CannotListen: an address is taken or not ours.
    """
    sockets: list[tuple[socket.socket, Bind]] = []
    try:
        for bind in binds:
            port = bind.port
            for host in bind.hosts:
                try:
                    sock = _listen(host, port)
                except OSError as error:
                    if host != bind.hosts[0] and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        continue
                    raise CannotListen(host_port(host, port), setting, error) from error
                port = sock.getsockname()[1]
                sockets.append((sock, bind))
    except BaseException:
        for sock, _ in sockets:
            sock.close()
        raise
    return sockets


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
