"""What was pushed and what was answered, and whether that is true of what upstream has."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from tests.real.faktory_server import RealFaktory

QUEUE = "ledger"
SLOW = 0.25
"""Seconds of a reply that is written down with its time."""

FAKTORYS_OWN = re.compile(
    r"ERR (?:OOM command not allowed|cannot get \"|.*context deadline exceeded|.*i/o timeout|.*connection re|.*EOF"
    r"|redis: |shutdown in progress|LOADING|MISCONF|internal error|dial unix)"
)
"""Refusals that Faktory gives when it or its Redis is unwell: what a producer may be told beside our own words."""


@dataclass
class Book:
    """One column each for accepted, refused, and never answered; written by many threads.

    Attributes:
        accepted: jids that were answered `+OK`, or by their absence from a bulk push's map.
        refused: jids with the text of their refusal, its code included.
        unanswered: jids whose connection ended before a reply.
        slowest: seconds of the slowest reply.
        slow: replies that took over `SLOW`: when each came (`time.monotonic`), its seconds, and what it said of whom.
        surprises: what no producer should ever see, in words.
    """

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    slowest: float = 0.0
    slow: list[tuple[float, float, str]] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, jids: Collection[str], seconds: float = 0.0) -> None:
        """These were acknowledged, so many seconds after they were sent."""
        with self._lock:
            self.accepted.update(jids)
            self._note(seconds, f"OK to {min(jids, default='')}")

    def refuse(self, jids: Collection[str], text: str, seconds: float = 0.0) -> None:
        """These were refused with this text (`ERR …`)."""
        with self._lock:
            self.refused.update(dict.fromkeys(jids, text))
            self._note(seconds, f"{text} to {min(jids, default='')}")

    def _note(self, seconds: float, what: str) -> None:
        self.slowest = max(self.slowest, seconds)
        if seconds > SLOW:
            self.slow.append((time.monotonic(), seconds, what))

    def give_up(self, jids: Iterable[str]) -> None:
        """The connection ended before these were answered."""
        with self._lock:
            self.unanswered.update(jids)

    def wonder(self, what: str) -> None:
        """Note something that must not happen."""
        with self._lock:
            self.surprises.append(what)

    def of_kind(self, start: str) -> set[str]:
        """Jids whose refusal starts so."""
        with self._lock:
            return {jid for jid, text in self.refused.items() if text.startswith(start)}

    def false_replies(self, upstream: Counter[str]) -> list[str]:
        """What was answered and isn't so; empty is what it should be.

        A job answered `not sent` must not be upstream; one answered with Faktory's own words must have been refused by
        it. `in doubt` can be either way, and so can what ran into a time limit of Faktory's.
        """
        found = [f"acknowledged and lost: {jid}" for jid in sorted(self.accepted - upstream.keys())]
        for jid, text in sorted(self.refused.items()):
            if text.startswith("ERR not sent: "):
                if jid in upstream:
                    found.append(f"upstream although {text!r}: {jid}")
            elif not text.startswith("ERR in doubt: "):
                if not FAKTORYS_OWN.match(text):
                    found.append(f"a refusal that is nobody's: {text!r}: {jid}")
                elif jid in upstream and "deadline exceeded" not in text and "i/o timeout" not in text:
                    found.append(f"upstream although refused with {text!r}: {jid}")
        return found + self.surprises


def upstream_jobs(server: RealFaktory, queue: str = QUEUE) -> Counter[str]:
    """How often each jid is in a queue of the server, and that each job is what was pushed (`args[0]` is the jid)."""
    listed = server.redis("LRANGE", f"q:{queue}", "0", "-1")
    assert isinstance(listed, list)
    found: Counter[str] = Counter()
    for text in listed:
        job = json.loads(str(text))
        assert job["args"][0] == job["jid"], job
        found[job["jid"]] += 1
    return found


def duplicates(upstream: Counter[str]) -> int:
    """Copies beyond the first."""
    return sum(upstream.values()) - len(upstream)


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float) -> float:
    """Poll a condition that costs something; returns the seconds that it took.

    Raises:
        AssertionError: it didn't become true in time.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.1)
    return time.monotonic() - started
