"""A relay for what Toxiproxy can't do: resetting both ends, and ending one direction while the other goes on."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Carries bytes between a port of its own and a local server.

    Args:
        target: the server's port.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.mute = False
        """While true, what the server says is thrown away."""
        self.port: int = self._listener.getsockname()[1]

    def half_close(self) -> None:
        """End what the server says on all connections that are open now; what clients say still arrives."""
        for client, _ in list(self._pairs):
            _shut(client, socket.SHUT_WR)

    def reset(self) -> None:
        """Reset all connections, both ends of them; new ones go through."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                _shut(end, socket.SHUT_RD)  # wakes the thread that reads
                end.close()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                _shut(end, socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the relay is closed
            server = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes one way; when the sink takes no more they are thrown away, as by a peer that only reads."""
        said_by_server = any(source is server for _, server in self._pairs)
        while True:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            if not data:
                _shut(sink, socket.SHUT_WR)
                return
            if said_by_server and self.mute:
                continue
            try:
                sink.sendall(data)
            except OSError:
                continue


def _shut(end: socket.socket, how: int) -> None:
    try:
        end.shutdown(how)
    except OSError:
        return
