"""Floods: the first few word for word, the rest summed up at the end of the second."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import structlog
from structlog.typing import EventDict

from sidecar.logs import TIMEOUT, FloodLog, FlushLog
from sidecar.logs.floods import ALIKE_A_WINDOW, ALIKE_WINDOW, MAX_KINDS


@pytest.fixture
def records() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def messages(records: list[EventDict]) -> list[str]:
    return [record["message"] for record in records]


@pytest.fixture
def flushes() -> FlushLog:
    return FlushLog(structlog.get_logger())


@pytest.fixture
def floods() -> FloodLog:
    return FloodLog(structlog.get_logger())


def test_single_batches_have_the_guides_words(flushes: FlushLog, records: list[EventDict]) -> None:
    flushes.flushed(100, "batch full", 0.0)
    flushes.flushed(23, TIMEOUT, 0.1)
    flushes.enqueued(100, 0.2)
    assert messages(records) == [
        "Auto-flushing batch of 100 jobs (batch full)",
        "Batch flusher: flushing 23 jobs after timeout",
        "Enqueued batch of 100 jobs",
    ]
    assert [record["event"] for record in records] == ["batch_flushed", "batch_flushed", "batch_enqueued"]
    assert [record["jobs"] for record in records] == [100, 23, 100]
    assert flushes.due is None


def test_a_flood_is_summed_up_at_the_end_of_its_second(flushes: FlushLog, records: list[EventDict]) -> None:
    for index in range(253):
        flushes.flushed(100, "batch full", 10 + index / 1000)
    for index in range(253):
        flushes.enqueued(100, 10.5 + index / 1000)
    assert (
        messages(records) == ["Auto-flushing batch of 100 jobs (batch full)"] * 5 + ["Enqueued batch of 100 jobs"] * 5
    )
    assert flushes.due == 11.0

    flushes.tick(10.999)
    assert len(records) == 10
    flushes.tick(11.0)
    assert messages(records)[10:] == ["Auto-flushing 248 more batches, 24,800 jobs (batch full)"]
    assert flushes.due == 11.5
    flushes.tick(12.0)
    assert messages(records)[11:] == ["Enqueued 248 more batches, 24,800 jobs"]
    assert flushes.due is None
    flushes.tick(13.0)
    assert len(records) == 12
    assert records[-1]["batches"] == 248


def test_an_event_after_the_second_sums_up_first(flushes: FlushLog, records: list[EventDict]) -> None:
    for _ in range(6):
        flushes.flushed(7, TIMEOUT, 0.0)
    flushes.flushed(8, TIMEOUT, 1.0)
    assert messages(records)[5:] == [
        "Batch flusher: flushing 1 more batch, 7 jobs after timeout",
        "Batch flusher: flushing 8 jobs after timeout",
    ]


def test_each_second_has_its_own_first_few(flushes: FlushLog, records: list[EventDict]) -> None:
    for second in range(3):
        for _ in range(6):
            flushes.enqueued(1, float(second))
    flushes.tick(math.inf)
    assert messages(records) == (["Enqueued batch of 1 jobs"] * 5 + ["Enqueued 1 more batch, 1 job"]) * 3


def test_the_end_tells_what_is_left(flushes: FlushLog, records: list[EventDict]) -> None:
    for _ in range(7):
        flushes.flushed(10, "batch full", 0.0)
    flushes.tick(math.inf)
    assert messages(records)[-1] == "Auto-flushing 2 more batches, 20 jobs (batch full)"


def test_every_job_is_told_once(flushes: FlushLog, records: list[EventDict]) -> None:
    for index in range(1000):
        flushes.enqueued(3, index / 37)
    flushes.tick(math.inf)
    assert sum(record["jobs"] for record in records) == 3000


def test_a_flapping_link_says_how_much_was_left_out(floods: FloodLog, records: list[EventDict]) -> None:
    for index in range(40):
        floods.warning(index / 10, "link_down", message="Link down (connection reset)", retry_s=index)
    assert len(records) == ALIKE_A_WINDOW
    assert {record["log_level"] for record in records} == {"warning"}
    assert floods.due == ALIKE_WINDOW
    floods.tick(ALIKE_WINDOW)
    assert records[-1]["message"] == "35 more like this in 10 s: Link down (connection reset)"
    assert records[-1]["left_out"] == 35
    assert records[-1]["event"] == "link_down"
    assert floods.due is None


def test_one_bad_producer_does_not_hide_another(floods: FloodLog, records: list[EventDict]) -> None:
    for _ in range(20):
        floods.warning(0.0, "bad_line", message="no command", key="10.0.0.1")
    floods.warning(0.0, "bad_line", message="no command", key="10.0.0.2", peer="10.0.0.2")
    floods.info(0.0, "other", message="something else")
    assert len(records) == ALIKE_A_WINDOW + 2
    assert records[-2]["peer"] == "10.0.0.2"
    assert records[-1]["log_level"] == "info"


def test_many_kinds_stay_bounded(floods: FloodLog, records: list[EventDict]) -> None:
    for index in range(MAX_KINDS * 3):
        floods.warning(0.0, "bad_line", message="no command", key=str(index))
    assert len(records) == MAX_KINDS + ALIKE_A_WINDOW
    floods.tick(math.inf)
    assert records[-1]["left_out"] == MAX_KINDS * 2 - ALIKE_A_WINDOW
    floods.warning(1.0, "bad_line", message="no command", key="new")
    assert records[-1]["message"] == "no command"
