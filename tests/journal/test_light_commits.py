"""Small commits leave the row of counts as it is: what they stored is counted all the same, also after a crash."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sidecar.journal import schema
from sidecar.journal.reading import Counts
from sidecar.journal.store import Addition, Change, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def add(store: Store, first: int, jobs: int, gone: list[int] | None = None) -> None:
    change = Change([Addition(first, [b"{}"] * jobs, [1] * jobs, 1.0)])
    change.gone += gone or []
    store.commit(change)


def row(store: Store) -> tuple[int, int]:
    found: tuple[int, int] = store.db.execute("SELECT jobs, last_id FROM counts").fetchone()
    return found


def test_a_light_commit_is_counted_without_touching_the_row(store: Store) -> None:
    add(store, 1, 3)
    assert row(store) == (0, 0)
    assert store.counts() == Counts(jobs=3, last_id=3)


def test_the_next_deletion_moves_the_row_over_them(store: Store) -> None:
    add(store, 1, 3)
    add(store, 4, 2, gone=[1, 4])
    assert row(store) == (3, 5)
    assert store.counts() == Counts(jobs=3, last_id=5)


def test_a_copy_as_of_any_commit_counts_right(store: Store, tmp_path: Path) -> None:
    expected = 0
    for step in range(1, 8):
        gone = [step - 1] if step % 3 == 0 else []
        add(store, step, 1, gone=gone)
        expected += 1 - len(gone)
        copy = tmp_path / f"copy{step}"
        copy.mkdir()
        for name in (schema.DB_NAME, f"{schema.DB_NAME}-wal"):
            shutil.copy(store.directory / name, copy / name)
        reopened = Store(copy)
        assert reopened.counts() == Counts(jobs=expected, last_id=step)
        add(reopened, step + 1, 1)
        add(reopened, step + 2, 1, gone=[step])
        assert reopened.counts() == Counts(jobs=expected + 1, last_id=step + 2)
        reopened.close()


def test_the_uncounted_stay_few(store: Store) -> None:
    for first in range(1, schema.UNCOUNTED_JOBS + 200, 10):
        add(store, first, 10)
        counted, last = row(store)
        assert store.counts().jobs - counted <= schema.UNCOUNTED_JOBS + schema.LIGHT_JOBS
    assert last > 0


def test_damaged_rows_are_set_aside_from_uncounted_ones(store: Store) -> None:
    add(store, 1, 3)
    store.set_aside([2])
    assert store.counts() == Counts(jobs=2, damaged=1, last_id=3)
