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

MAPPED: Final = 1024 * 1024
"""Bytes from which on an allocation is a mapping of its own, given back as soon as it is freed."""
KEPT: Final = 4 * 1024 * 1024
"""Bytes of freed memory that the C library may keep at the end of its heap."""
GC_THRESHOLD: Final = 20_000
"""Allocations of tracked objects between two collections of the youngest generation."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
LOOK_EVERY: Final = 1.0
"""Seconds between looks whether there is something to do."""
TIDY_EVERY: Final = 20.0
"""Seconds between tidying up without a special reason."""
MUCH: Final = 16 * 1024 * 1024
"""Bytes of large commands that are a reason: what they were made of lies in pieces all over the heap."""
QUIET: Final = 10_000
"""Jobs in memory above which a look is put off: a collection takes a millisecond or two for so many."""
AT_LAST: Final = 300.0
"""Seconds after which it isn't put off any longer, for a long outage has connections that end, too."""


def give_back_large() -> None:
    """Have the C library give large blocks back when they are freed, once and for all.

    glibc moves its threshold up to the largest block that was ever freed (to 32 MiB), and from then on such blocks lie
    in the heap, which shrinks only when its end is free.
    """
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED)
        mallopt(_M_TRIM_THRESHOLD, KEPT)


def calm_collector() -> None:
    """Keep the cycle collector from walking over what lives as long as the process, and over waiting jobs.

    A collection of the oldest generation beside 100,000 waiting jobs stops the loop for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)


async def tidy(waiting: Callable[[], int], large: Callable[[], int]) -> None:
    """Collect dead cycles and give freed pages back, at quiet moments and behind large commands, until cancelled.

    Args:
        waiting: how many jobs are in memory.
        large: counts bytes of large commands that were let go of.
    """
    trim = _of_libc("malloc_trim")
    last, seen = trio.current_time(), large()
    while True:
        await trio.sleep(LOOK_EVERY)
        now = trio.current_time()
        due = waiting() <= QUIET if now - last >= TIDY_EVERY else large() - seen >= MUCH
        if due or now - last >= AT_LAST:
            last, seen = now, large()
            gc.collect()
            if trim is not None:
                trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    """A function that glibc has; None where the C library is another one."""
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return function
