"""When a link that works carries less, or nothing for a while."""

from __future__ import annotations

import pytest

from sidecar.forwarder.batching import Batcher, Limits
from sidecar.forwarder.pacing import HOLD_FIRST, HOLD_MAX, Pacing


@pytest.fixture
def lanes() -> Batcher:
    return Batcher(Limits(jobs=100, size=1 << 20, linger=0.05))


def test_the_hold_doubles_up_to_its_bound_and_starts_again_after_a_success(lanes: Batcher) -> None:
    pacing, now, holds = Pacing(lanes), 100.0, []
    for _ in range(8):
        pacing.transient(now)
        holds.append(pacing.hold_until - now)
        now = pacing.hold_until
    assert HOLD_FIRST * 0.75 <= holds[0] <= HOLD_FIRST * 1.25
    assert holds[3] > 2 * holds[0]
    assert max(holds) <= HOLD_MAX * 1.25
    pacing.success()
    pacing.transient(now)
    assert pacing.hold_until - now <= HOLD_FIRST * 1.25


def test_refusals_of_what_was_in_flight_together_count_as_one(lanes: Batcher) -> None:
    pacing = Pacing(lanes)
    pacing.too_slow(10.0)
    until = pacing.hold_until
    for _ in range(63):
        pacing.too_slow(10.01)
    assert (pacing.hold_until, lanes.max_jobs) == (until, 50)


def test_batches_are_halved_down_to_one_job_and_grow_back(lanes: Batcher) -> None:
    pacing, now = Pacing(lanes), 0.0
    for _ in range(10):
        pacing.too_slow(now)
        now = pacing.hold_until
    assert lanes.max_jobs == 1
    sizes = []
    while lanes.max_jobs < 100:
        pacing.success()
        sizes.append(lanes.max_jobs)
    assert sizes == sorted(sizes)
    assert len(sizes) < 60
