"""When a link that works should carry less, or nothing for a while. Pure: the caller says what time it is."""

from __future__ import annotations

import random

from sidecar.forwarder.batching import Batcher

HOLD_FIRST, HOLD_MAX = 0.2, 5.0
"""Seconds of silence after a transient refusal; doubled while they go on. Faktory's own limit for a command is 5 s."""
GROWTH = 1.1
"""How much a batch that was halved grows after each success: back to full size within some dozens of batches."""


class Pacing:
    """Backs off as a whole on transient refusals; halves batches when upstream runs out of time."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._hold = 0.0
        self._jitter = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self.hold_until = 0.0
        """Nothing is sent before this time (seconds of the caller's clock)."""

    @property
    def cautious(self) -> bool:
        """True from a refusal until the next acceptance: one command at a time is enough to learn how things are."""
        return self._hold > 0

    def transient(self, now: float) -> None:
        """Upstream is unwell. Refusals of what was in flight together count as one."""
        if now < self.hold_until:
            return
        self._hold = min(max(self._hold * 2, HOLD_FIRST), HOLD_MAX)
        self.hold_until = now + self._hold * self._jitter.uniform(0.75, 1.25)

    def too_slow(self, now: float) -> None:
        """Upstream ran out of time within a batch."""
        if now >= self.hold_until:
            self._batcher.max_jobs = max(1, self._batcher.max_jobs // 2)
        self.transient(now)

    def success(self) -> None:
        """A batch was accepted."""
        self._hold = 0.0
        full = self._batcher.limits.jobs
        if self._batcher.max_jobs < full:
            self._batcher.max_jobs = min(full, int(self._batcher.max_jobs * GROWTH) + 1)
