"""What goes into one transaction, and what of it is counted."""

from __future__ import annotations

from sidecar.errors import Refusal
from sidecar.journal.pending import GROUP_BYTES, Pending
from sidecar.journal.requests import Append
from sidecar.journal.space import ROW_OVERHEAD

THIRD = b"x" * (GROUP_BYTES // 3 + 1)


def ignored(_: Refusal | None) -> None:
    """A producer that doesn't wait."""


def append(first: int, jobs: int, payload: bytes) -> Append:
    size = jobs * (len(payload) + ROW_OVERHEAD)
    return Append(first, [payload] * jobs, [1] * jobs, 1.0, ignored, 2.0, size)


def test_an_append_that_is_too_large_is_one_transaction_of_several_inserts() -> None:
    pending = Pending()
    pending.add(append(1, 5, THIRD))
    pending.add(append(6, 1, b"{}"))
    group = pending.take(lambda _: True)
    parts = [(part.first, len(part.payloads)) for part in (*group.change.ahead, *group.change.additions)]
    assert parts == [(1, 2), (3, 2), (5, 1)]
    assert (group.jobs, group.bytes) == (5, 5 * (len(THIRD) + ROW_OVERHEAD))
    assert len(pending.finish(group)) == 1
    assert [waiting.first for waiting in pending.appends] == [6]


def test_small_jobs_are_counted_with_what_a_row_takes_beside_them() -> None:
    pending = Pending()
    jobs = GROUP_BYTES // ROW_OVERHEAD
    pending.add(append(1, jobs, b"{}"))
    group = pending.take(lambda _: True)
    assert group.bytes == jobs * (2 + ROW_OVERHEAD)
    assert [len(part.payloads) * (2 + ROW_OVERHEAD) <= GROUP_BYTES for part in group.change.ahead] == [True, True]


def test_a_job_that_is_larger_than_a_transaction_goes_alone() -> None:
    pending = Pending()
    pending.add(append(1, 1, b"x" * (GROUP_BYTES + 1)))
    pending.add(append(2, 1, b"{}"))
    group = pending.take(lambda _: True)
    assert (group.jobs, len(group.change.ahead), len(pending.appends)) == (1, 1, 1)


def test_what_can_never_fit_is_refused_at_once_and_blocks_nobody() -> None:
    told: list[Refusal | None] = []
    pending = Pending()
    large = append(1, 2, b"x" * GROUP_BYTES)
    large.done = told.append
    pending.add(large)
    pending.add(append(3, 1, b"{}"))
    for call in pending.refuse_unfit(lambda size: "too much" if size > GROUP_BYTES else None):
        call()
    assert [refusal.message for refusal in told if refusal is not None] == ["not sent: too much"]
    assert [waiting.first for waiting in pending.appends] == [3]


def test_after_a_mend_jobs_of_a_failed_commit_are_what_the_disk_says() -> None:
    told: list[Refusal | None] = []
    pending = Pending()
    for first in (1, 3, 5):
        pending.add(append(first, 2, b"{}"))
        pending.appends[-1].done = told.append
    pending.undo(pending.take(lambda _: True), doubtful=True)
    pending.appends[0].due = 0.0
    for call in pending.refuse("disk", 1.0):
        call()
    assert [refusal is not None and refusal.message[:8] for refusal in told] == ["in doubt"]
    calls, found = pending.resolve(lambda ids: [number for number in ids if number < 5])
    assert found == [1, 2]  # refused and stored: somebody has to send them
    for call in calls:
        call()
    assert told[1:] == [None]  # 3 and 4 are stored: their producer is told so
    assert [(waiting.first, waiting.doubtful) for waiting in pending.appends] == [(5, False)]
