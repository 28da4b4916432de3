"""Memory: when dead cycles are looked for, and freed pages given back.

Jobs form no cycles, so reference counts free them, and the collector of cycles would only walk over what waits. But a
connection that ends leaves one (its tasks, the exception, the frames between), and Python's own collector, which counts
allocations, never came across those of a connection that had lived long. The C library keeps what a backlog took in
pieces between what lives on. Both are seen to now and then, when little waits.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Final

import trio

GC_THRESHOLD: Final = 20_000
"""Allocations of tracked objects between two collections of the youngest generation."""
TIDY_EVERY: Final = 20.0
"""Seconds between two looks."""
QUIET: Final = 10_000
"""Jobs in memory above which a look is put off: a collection takes a millisecond or two for so many."""
AT_LAST: Final = 300.0
"""Seconds after which it isn't put off any longer, for a long outage has connections that end, too."""


def calm_collector() -> None:
    """Keep the cycle collector from walking over what lives as long as the process, and over waiting jobs.

    A collection of the oldest generation beside 100,000 waiting jobs stops the loop for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)


async def tidy(waiting: Callable[[], int]) -> None:
    """Collect dead cycles and give freed pages back, at quiet moments, until cancelled.

    Args:
        waiting: how many jobs are in memory.
    """
    trim = _trim()
    last = trio.current_time()
    while True:
        await trio.sleep(TIDY_EVERY)
        if waiting() <= QUIET or trio.current_time() - last >= AT_LAST:
            last = trio.current_time()
            gc.collect()
            trim(0)


def _trim() -> Callable[[int], int]:
    """`malloc_trim`, where the C library has it (glibc does); else nothing."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda _pad: 0
    return trim
