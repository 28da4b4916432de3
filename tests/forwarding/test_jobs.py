"""Barriers' bookkeeping: what passes when."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sidecar.jobs import Epoch, Origin


def test_a_barrier_passes_at_once_when_nothing_is_unsettled() -> None:
    passed: list[str] = []
    Origin(itertools.count(1)).close_epoch().wait(lambda: passed.append("now"))
    assert passed == ["now"]


def test_a_barrier_waits_for_jobs_before_it_and_not_for_later_ones() -> None:
    origin = Origin(itertools.count(1))
    before = origin.epoch
    before.unsettled += 2
    passed: list[str] = []
    origin.close_epoch().wait(lambda: passed.append("barrier"))
    origin.epoch.unsettled += 1
    before.settle()
    assert passed == []
    before.settle()
    assert passed == ["barrier"]
    assert not origin.epoch.passed


def test_barriers_pass_in_order_although_jobs_settle_out_of_order() -> None:
    origin = Origin(itertools.count(1))
    epochs: list[Epoch] = []
    passed: list[int] = []
    for number in range(3):
        origin.epoch.unsettled += 1
        epochs.append(origin.epoch)
        origin.close_epoch().wait(lambda number=number: passed.append(number))  # type: ignore[misc]
    epochs[2].settle()
    epochs[1].settle()
    assert passed == []
    epochs[0].settle()
    assert passed == [0, 1, 2]


def test_two_barriers_in_a_row_wait_for_the_same_jobs() -> None:
    origin = Origin(itertools.count(1))
    first = origin.epoch
    first.unsettled += 1
    passed: list[str] = []
    origin.close_epoch().wait(lambda: passed.append("one"))
    origin.close_epoch().wait(lambda: passed.append("two"))
    first.settle()
    assert passed == ["one", "two"]


@given(st.lists(st.integers(0, 3), max_size=8), st.randoms())
def test_a_barrier_passes_exactly_when_the_last_job_before_it_is_settled(jobs: list[int], random: object) -> None:
    origin = Origin(itertools.count(1))
    passed: list[int] = []
    owed: list[tuple[int, Epoch]] = []
    for barrier, count in enumerate(jobs):
        origin.epoch.unsettled += count
        owed += [(barrier, origin.epoch)] * count
        origin.close_epoch().wait(lambda barrier=barrier: passed.append(barrier))  # type: ignore[misc]
    random.shuffle(owed)  # type: ignore[attr-defined]
    while owed:
        owed.pop()[1].settle()
        first_open = min((barrier for barrier, _ in owed), default=len(jobs))
        assert sorted(passed) == list(range(first_open))
    assert sorted(passed) == list(range(len(jobs)))


def test_cold_jobs_are_forgotten_as_the_cursor_passes_them() -> None:
    epoch = Epoch(1)
    for job_id in (3, 5, 8, 13):
        epoch.add_cold(job_id)
    assert list(epoch.read_back_to(4)) == [3]
    assert list(epoch.read_back_to(8)) == [5, 8]
    assert list(epoch.take_cold()) == [13]
    assert not epoch.take_cold()
    assert not epoch.read_back_to(99)
