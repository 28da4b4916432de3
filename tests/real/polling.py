"""Waiting for a condition with a deadline, where a test has no event to wait on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

STEP = 0.01
"""Seconds between two looks at the condition."""


def wait_for(look: Callable[[], T | None], *, what: str, timeout: float = 10.0) -> T:
    """Calls `look` until it returns something true, and returns that.

    Args:
        look: the condition; its value is handed back.
        what: what is waited for, for the message of the failure.
        timeout: seconds, real time.

    Raises:
        AssertionError: the deadline passed.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(STEP)


async def wait_for_async(look: Callable[[], T | None], *, what: str, timeout: float = 10.0) -> T:
    """`wait_for` that leaves the trio loop free between two looks; `look` itself must not block."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        await trio.sleep(STEP)
