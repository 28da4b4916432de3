"""What fails in a way that nobody foresaw ends itself alone: it is told as the defect it is, and tried again.

A nursery ends all of its tasks with the first that raises, and trio ends the process for a callback that does. So every
task that runs as long as the sidecar does is `supervised`, one that serves somebody is `contained`, and who calls
others back does it `guarded`. Where a failure may have left something half done, who supervises isn't asked: the part
itself knows how to come back to a known state (the link is given up, and its jobs are in doubt).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVarTuple

import trio

from sidecar.logs import defect

Ts = TypeVarTuple("Ts")

FIRST, LAST = 0.25, 15.0
"""Seconds before a failed part is started again: the first time, doubled up to the last."""
STABLE_AFTER: Final = 60.0
"""Seconds that a part must have run before the pause is the first one again."""


def guarded(where: str, call: Callable[[*Ts], object], *arguments: *Ts) -> bool:
    """Call somebody back; whatever that raises is logged as a defect. Whether it raised nothing.

    Args:
        where: the part that is called, in a word or two.
    """
    try:
        call(*arguments)
    except Exception as error:
        defect(where, error)
        return False
    return True


async def contained(where: str, work: Callable[[], Awaitable[object]], what: str = "") -> bool:
    """Run something once; whatever it raises is logged as a defect. Whether it raised nothing.

    Args:
        what: what becomes of it, as the rest of the log's sentence.
    """
    failed = False
    try:
        await work()
    except* Exception as group:  # a cancellation beside it goes on its way
        defect(where, group, what)
        failed = True
    return not failed


async def supervised(where: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run something until it returns or is cancelled; when it fails it is started again, later each time."""
    pause = 0.0
    while True:
        started = trio.current_time()
        if await contained(where, work, "it is started again"):
            return
        stable = trio.current_time() - started >= STABLE_AFTER
        pause = FIRST if stable else min(max(2 * pause, FIRST), LAST)
        await trio.sleep(pause)
