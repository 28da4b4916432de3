"""Tells those who look at the status page what has changed, once a second; does nothing while nobody looks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import msgspec
import trio

from sidecar.ops.facts import Gauge
from sidecar.ops.pulse import HISTORY
from sidecar.web.status.sections import Letters, changing, head, setting_rows

MAX_VIEWERS: Final = 50  # each holds one of the HTTP edge's 500 connections for as long as it looks
RETRY_MS: Final = 2_000  # after which a browser connects again

_encode = msgspec.json.Encoder().encode


class Broadcast:
    """The sections of the page, each with the number of the look that saw it change."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._letters = Letters(gauge.journal)
        self._look = 1
        self._fresh = False  # the sections are those of this second
        self._tick = trio.Event()
        self._sections: dict[str, tuple[int, bytes]] = {}
        self._messages: dict[int, bytes] = {}
        self.viewers = 0
        gauge.pulse.each_second(self._next_second)
        self._put("head", head(gauge))
        self._put("settings", setting_rows(gauge))

    async def everything(self) -> bytes:
        """All sections as one JSON object."""
        await self._refresh()
        return self._message(0)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: everything first, then what has changed; until the sidecar ends."""
        self.viewers += 1
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            seen = 0
            while not self._gauge.pulse.stopped:
                await self._refresh()
                message, seen = self._message(seen), self._look
                yield b"data: %b\n\n" % message
                await self._tick.wait()
        finally:
            self.viewers -= 1

    def _next_second(self) -> None:
        self._fresh = False
        tick, self._tick = self._tick, trio.Event()
        tick.set()

    async def _refresh(self) -> None:
        """Look again, once a second however many ask."""
        if self._fresh:
            return
        self._fresh = True
        await self._letters.refresh()
        self._look += 1
        self._messages.clear()
        for name, section in changing(self._gauge, self._letters).items():
            self._put(name, section)

    def _put(self, name: str, section: object) -> None:
        encoded = _encode(section)
        if name not in self._sections or self._sections[name][1] != encoded:
            self._sections[name] = (self._look, encoded)

    def _message(self, seen: int) -> bytes:
        """What has changed since a look; viewers in step share one message."""
        message = self._messages.get(seen)
        if message is None:
            parts = [b'"%b":%b' % (name.encode(), text) for name, (look, text) in self._sections.items() if look > seen]
            points = list(self._gauge.pulse.points)
            new = points if not seen else points[-min(HISTORY, 3 * (self._look - seen)) :]
            parts.append(b'"points":%b' % _encode(new))
            message = self._messages[seen] = b"{%b}" % b",".join(parts)
        return message
