"""Mistakes of ours that came to light while running: told by type and place, and counted.

The words of an exception are left out, and so are its arguments: either may hold what a client or an operator wanted to
keep for himself. What a system call returned is told, because it has no such words.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import structlog

from sidecar.logs.floods import FloodLog

FRAMES: Final = 12
"""Of an exception that are told, the innermost: trio's own are most of the others."""
CHAIN: Final = 6
"""Exceptions that are told, with those that they came from."""


class Defects:
    """What is known of them.

    Attributes:
        counts: how often, by where it was.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._floods = FloodLog(structlog.get_logger())
        self._lock = threading.RLock()

    def note(self, where: str, error: BaseException, what: str = "") -> None:
        """Log and count a defect; from any thread, and it never raises.

        Args:
            where: the part that failed, one of few words: a label of a metric.
            what: what became of it, as the rest of the sentence.
        """
        try:
            with self._lock:
                self.counts[where] = self.counts.get(where, 0) + 1
                self._log(where, error, what)
        except Exception:
            return  # no memory is left, for one: then there is none to say so, either

    def _log(self, where: str, error: BaseException, what: str) -> None:
        kind = described(error)
        self._floods.error(
            time.monotonic(),
            "defect",
            message=f"A defect ({kind}) in: {where}{what and f'; {what}'}",
            key=f"{where} {kind}",
            where=where,
            exception=places(error),
        )

    def tick(self, now: float | None = None) -> None:
        """Write the summaries that are due; at the end of all with `math.inf`."""
        with self._lock:
            self._floods.tick(time.monotonic() if now is None else now)


DEFECTS: Final = Defects()
defect = DEFECTS.note


def defects() -> Mapping[str, int]:
    """How many there were, by where."""
    return DEFECTS.counts


def catch_the_rest() -> None:
    """What nobody catches, in any thread, becomes a record too, in place of a traceback with all its words.

    So do Python's warnings.
    """
    logging.captureWarnings(True)
    sys.excepthook = lambda _kind, error, _trace: defect("process", error)
    threading.excepthook = lambda args: args.exc_value and defect("thread", args.exc_value)
    sys.unraisablehook = lambda args: args.exc_value and defect("finalizer", args.exc_value)


def described(error: BaseException) -> str:
    """`RuntimeError at thread.py:12 in start`: the innermost exception's type and place."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return _kind(error) + at


def places(error: BaseException) -> str:
    """A traceback without the exceptions' words."""
    return "\n".join(_told(error, 0))


def _told(error: BaseException, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent}{_kind(error)}"
    for frame in traceback.extract_tb(error.__traceback__)[-FRAMES:]:
        yield f"{indent}  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
    if depth >= CHAIN:
        return
    inner = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    source = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for each in (*inner[:CHAIN], source):
        if each is not None:
            yield from _told(each, depth + 1)


def _kind(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno:
        return f"{name}: {os.strerror(error.errno)}"
    return name
