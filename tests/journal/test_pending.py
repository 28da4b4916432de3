"""What goes into one transaction, and what of it is counted."""

from __future__ import annotations

from sidecar.errors import Refusal
from sidecar.journal.pending import GROUP_BYTES, Pending
from sidecar.journal.requests import Append

THIRD = b"x" * (GROUP_BYTES // 3 + 1)


def ignored(_: Refusal | None) -> None:
    """A producer that doesn't wait."""


def append(first: int, jobs: int, payload: bytes) -> Append:
    return Append(first, [payload] * jobs, [1] * jobs, 1.0, ignored, 2.0, jobs * len(payload))


def test_an_append_that_is_too_large_goes_in_parts_and_each_part_counts() -> None:
    pending = Pending()
    pending.add(append(1, 5, THIRD))
    parts = []
    while pending.appends:
        group = pending.take(lambda _: True)
        parts.append((group.change.additions[0].first, group.jobs, group.bytes))
        pending.finish(group)
    assert parts == [(1, 2, 2 * len(THIRD)), (3, 2, 2 * len(THIRD)), (5, 1, len(THIRD))]


def test_a_job_that_is_larger_than_a_transaction_goes_alone() -> None:
    pending = Pending()
    pending.add(append(1, 1, b"x" * (GROUP_BYTES + 1)))
    pending.add(append(2, 1, b"{}"))
    group = pending.take(lambda _: True)
    assert (group.jobs, group.bytes, len(pending.appends)) == (1, GROUP_BYTES + 1, 1)
