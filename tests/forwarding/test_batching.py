"""Which jobs leave together, and when."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.forwarder.batching import Batch, Batcher, Limits
from sidecar.jobs import Entry, Origin, Place

LINGER = 0.05


def batcher(jobs: int = 3, size: int = 1_000, linger: float = LINGER) -> Batcher:
    return Batcher(Limits(jobs, size, linger))


class Maker:
    """Entries with rising ids, of as many origins as wanted."""

    def __init__(self) -> None:
        self.ids = itertools.count(1)
        self.numbers = itertools.count(1)
        self.origins: dict[str, Origin] = {}

    def __call__(
        self, *jids: str, at: float = 0.0, origin: str = "a", single: bool = False, size: int = 10
    ) -> list[Entry]:
        epoch = self.origins.setdefault(origin, Origin(self.numbers)).epoch
        return [Entry(next(self.ids), b"x" * size, jid, epoch, at, single=single) for jid in jids]


@pytest.fixture
def make() -> Maker:
    return Maker()


def jids(batch: Batch | None) -> list[str]:
    assert batch is not None
    return [entry.jid for entry in batch.entries]


def test_a_full_batch_leaves_at_once_and_the_rest_lingers(make: Maker) -> None:
    lanes = batcher()
    lanes.offer(make("j1", "j2", "j3", "j4", at=10.0))
    full = lanes.take(10.0)
    assert jids(full) == ["j1", "j2", "j3"]
    assert full is not None
    assert full.reason == "full"
    assert lanes.take(10.0) is None
    assert lanes.due() == pytest.approx(10.0 + LINGER)
    late = lanes.take(10.0 + LINGER)
    assert jids(late) == ["j4"]
    assert late is not None
    assert late.reason == "timeout"
    assert lanes.due() is None
    assert (lanes.jobs, lanes.hot_bytes) == (0, 0)


def test_the_linger_counts_from_the_first_job_of_the_batch(make: Maker) -> None:
    lanes = batcher(jobs=100)
    lanes.offer(make("j1", at=1.0))
    lanes.offer(make("j2", at=1.04))
    assert lanes.due() == pytest.approx(1.0 + LINGER)


def test_bytes_end_a_batch_and_a_larger_job_travels_alone(make: Maker) -> None:
    lanes = batcher(jobs=100, size=100)
    lanes.offer(make("j1", "j2", size=40) + make("big", size=500) + make("j3", size=40), linger=False)
    assert [jids(lanes.take(0.0)) for _ in range(3)] == [["j1", "j2"], ["big"], ["j3"]]


def test_a_repeated_jid_ends_the_batch(make: Maker) -> None:
    lanes = batcher(jobs=100)
    lanes.offer(make("j1", "j2", "j1", "j1"), linger=False)
    assert [jids(lanes.take(0.0)) for _ in range(3)] == [["j1", "j2"], ["j1"], ["j1"]]


def test_a_single_travels_by_itself(make: Maker) -> None:
    lanes = batcher(jobs=100)
    lanes.offer(make("j1") + make("lone", single=True) + make("j2"), linger=False)
    batches = [lanes.take(0.0) for _ in range(3)]
    assert [jids(batch) for batch in batches] == [["j1"], ["lone"], ["j2"]]
    assert [batch.single for batch in batches if batch] == [False, True, False]


def test_jobs_that_do_not_linger_take_those_before_them_along(make: Maker) -> None:
    lanes = batcher(jobs=100)
    lanes.offer(make("j1", at=5.0))
    assert lanes.take(5.0) is None
    lanes.offer(make("j2", at=5.0), linger=False)
    lanes.offer(make("j3", at=5.0))
    batch = lanes.take(5.0)
    assert jids(batch) == ["j1", "j2", "j3"]
    assert batch is not None
    assert batch.reason == "asked"


def test_promoted_jobs_go_ahead_of_a_long_queue_in_their_order(make: Maker) -> None:
    lanes = batcher(jobs=2)
    lanes.offer(make("a1", "a2", "a3"))
    lanes.offer(make("b1", "b2", origin="b"))
    lanes.offer(make("a4"))
    lanes.promote(make.origins["b"].epoch)
    assert lanes.jobs == 6
    assert [jids(lanes.take(0.0)) for _ in range(3)] == [["b1", "b2"], ["a1", "a2"], ["a3", "a4"]]
    assert lanes.take(99.0) is None
    assert (lanes.jobs, lanes.hot_bytes) == (0, 0)


def test_a_dropped_job_never_leaves(make: Maker) -> None:
    lanes = batcher(jobs=100)
    entries = make("j1", "j2", "j3")
    lanes.offer(entries, linger=False)
    assert lanes.drop(entries[0])
    assert lanes.drop(entries[2])
    assert jids(lanes.take(0.0)) == ["j2"]
    assert not lanes.drop(entries[1])
    assert lanes.due() is None
    assert (lanes.jobs, lanes.hot_bytes) == (0, 0)


def test_what_comes_back_goes_first_in_its_old_order(make: Maker) -> None:
    lanes = batcher(jobs=2)
    lanes.offer(make("j1", "j2", "j3", "j4", "j5"), linger=False)
    first, second = lanes.take(0.0), lanes.take(0.0)
    assert first is not None
    assert second is not None
    lanes.give_back(first.entries)
    lanes.give_back(second.entries)
    assert [jids(lanes.take(0.0)) for _ in range(3)] == [["j1", "j2"], ["j3", "j4"], ["j5"]]
    lanes.give_back(second.entries)
    lanes.give_back(first.entries)
    assert [jids(lanes.take(0.0)) for _ in range(2)] == [["j1", "j2"], ["j3", "j4"]]


def test_a_split_batch_leaves_in_halves_before_all_others(make: Maker) -> None:
    lanes = batcher(jobs=4)
    lanes.offer(make("j1", "j2", "j3", "j4", "j5"), linger=False)
    whole = lanes.take(0.0)
    assert whole is not None
    lanes.split(whole, alone=True)
    assert lanes.next_is_alone()
    assert [jids(lanes.take(0.0)) for _ in range(3)] == [["j1", "j2"], ["j3", "j4"], ["j5"]]


Step = tuple[str, int]


@given(st.lists(st.tuples(st.sampled_from(["offer", "take", "back", "promote", "drop", "split"]), st.integers(0, 7))))
def test_every_job_leaves_exactly_once_and_each_origin_in_order(steps: list[Step]) -> None:
    lanes, make, left = batcher(jobs=3), Maker(), list[Entry]()
    offered: list[Entry] = []
    taken: list[Batch] = []
    first_sends: dict[int, list[int]] = {}

    def note(batch: Batch | None) -> None:
        if batch is not None:
            assert 0 < len(batch.entries) <= 3
            taken.append(batch)
            for entry in batch.entries:
                sends = first_sends.setdefault(entry.epoch.number, [])
                if entry.id not in sends:
                    sends.append(entry.id)

    for what, number in steps:
        match what:
            case "offer":
                names = [f"j{number}-{i}" for i in range(number % 3 + 1)]
                entries = make(*names, origin=str(number % 3))
                offered += entries
                lanes.offer(entries, linger=number % 2 == 0)
            case "take":
                note(lanes.take(1.0 if number % 2 else 0.0))
            case "back" if taken:
                lanes.give_back(taken.pop(0).entries)
            case "split" if taken:
                lanes.split(taken.pop(), alone=False)
            case "promote" if (origin := make.origins.get(str(number % 3))) is not None:
                lanes.promote(origin.epoch)
            case "drop" if offered:
                entry = offered[number % len(offered)]
                if lanes.drop(entry):
                    left.append(entry)
        assert lanes.jobs == len(places(offered, below=Place.SENT))
        assert lanes.hot_bytes == 10 * lanes.jobs
    while (batch := lanes.take(10.0)) is not None:
        note(batch)
    gone = [entry.id for batch in taken for entry in batch.entries] + [entry.id for entry in left]
    assert sorted(gone) == [entry.id for entry in offered]
    for sends in first_sends.values():
        assert sends == sorted(sends)


def places(entries: Sequence[Entry], below: Place) -> list[Entry]:
    return [entry for entry in entries if entry.place < below]
