"""Hears each job that Faktory stores, on its Redis: what is fetched or flushed afterwards has arrived all the same."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterable

from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for

STORED = re.compile(rb'(?i:"LPUSH") "q:(?:ledger|work)" "\{[^\n]{0,100}?\\"jid\\":\\"([^\\"]+)\\"')
"""A job that enters a queue of ours, in the lines of Redis' MONITOR; the jid is among its first fields."""
PATIENCE = 60.0
"""Seconds until all that Redis has done must be heard."""


class Ear:
    """Counts how often each jid was stored, over all lives of a server.

    A life is heard from `attach` on: call it before anybody can push.
    """

    def __init__(self, server: RealFaktory) -> None:
        self._server = server
        self._heard: Counter[str] = Counter()
        self._marks: set[bytes] = set()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def attach(self) -> None:
        """Listen to the server's Redis, which was started anew; its last life is heard to its end before."""
        self.detach()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(self._server.directory / "redis.sock"))
        connection.sendall(b"MONITOR\r\n")
        assert connection.recv(5, socket.MSG_WAITALL) == b"+OK\r\n"
        connection.settimeout(None)
        self._thread = threading.Thread(target=self._listen, args=(connection,), name="ear", daemon=True)
        self._thread.start()

    def detach(self) -> None:
        """Hear the end of a life: its Redis has ended, or is about to."""
        if self._thread is not None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), "Redis has not ended"
            self._thread = None

    def heard(self) -> Counter[str]:
        """How often each jid was stored, up to now."""
        mark = f"mark-{next(self._numbers)}-".encode()
        self._server.redis("ECHO", mark.decode())
        wait_for(lambda: mark in self._marks, what="all that Redis did is heard", timeout=PATIENCE)
        with self._lock:
            return self._heard.copy()

    def forget(self, jids: Iterable[str] | None = None) -> None:
        """Count these, or all, from nothing again."""
        with self._lock:
            if jids is None:
                self._heard.clear()
            for jid in jids or ():
                self._heard.pop(jid, None)

    def _listen(self, connection: socket.socket) -> None:
        pieces: list[bytes] = []
        with connection:
            while data := _received(connection):
                pieces.append(data)
                if b"\n" in data:
                    lines, end, rest = b"".join(pieces).rpartition(b"\n")
                    pieces = [rest]
                    self._note(lines + end)

    def _note(self, lines: bytes) -> None:
        jids = [jid.decode() for jid in STORED.findall(lines)]
        with self._lock:
            self._heard.update(jids)
        self._marks.update(re.findall(rb'(?i:"ECHO") "(mark-\d+-)"', lines))


def _received(connection: socket.socket) -> bytes:
    """What came; empty at the end."""
    try:
        return connection.recv(1 << 18)
    except ConnectionError:
        return b""
