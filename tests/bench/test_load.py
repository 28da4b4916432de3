"""The load programs: processes that take orders, against the embedded Faktory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.children import BenchError, Child, Pool, python
from bench.load import first_due
from bench.orders import UNBOUNDED, Client, Order, Report
from bench.wire import Observer, WireError, round_trip

QUEUE = "bench-test"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """An embedded Faktory in a process of its own."""
    child = Child("the embedded Faktory", python("bench.servers", "faktory"), tmp_path / "faktory.stderr")
    yield f"tcp://127.0.0.1:{int(child.read_line())}"
    child.stop()


@pytest.fixture
def observer(url: str) -> Iterator[Observer]:
    """What looks into it."""
    looking = Observer(url, QUEUE)
    yield looking
    looking.close()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """Load programs."""
    programs = Pool(tmp_path)
    yield programs
    programs.close()


def carry_out(pool: Pool, order: Order) -> Report:
    """Has one program do it."""
    (program,) = pool.take(1)
    program.prepare(order)
    program.wait_ready()
    program.go()
    return program.report(order.seconds)


@pytest.mark.parametrize("client", ["pyfaktory", "raw"])
def test_single_pushes_are_counted_and_timed(url: str, observer: Observer, pool: Pool, client: Client) -> None:
    report = carry_out(pool, Order("push", url, QUEUE, client, producers=3, seconds=0.2))
    assert report.error == ""
    assert report.jobs == len(report.replies) == observer.count() > 0
    assert 0.0 < report.seconds < 5.0


def test_bulk_pushes_end_with_their_jobs(url: str, observer: Observer, pool: Pool) -> None:
    report = carry_out(pool, Order("bulk", url, QUEUE, producers=2, seconds=20, jobs=300, batch=100))
    assert (report.jobs, len(report.replies)) == (600, 6)
    assert observer.count() == 600


def test_pipelined_pushes_are_all_answered(url: str, observer: Observer, pool: Pool) -> None:
    report = carry_out(pool, Order("bulk", url, QUEUE, jobs=1000, batch=100, window=UNBOUNDED))
    assert report.jobs == observer.count() == 1000


def test_paced_pushes_keep_their_pace(url: str, observer: Observer, pool: Pool) -> None:
    report = carry_out(pool, Order("push", url, QUEUE, producers=2, seconds=1.0, interval=0.1))
    assert 10 <= report.jobs <= 22
    assert observer.count() == report.jobs


def test_producers_that_start_at_different_times_are_spread_evenly_all_the_same() -> None:
    starts = (1000.0, 1000.0017, 1000.0093, 1000.0158)
    dues = [first_due(start, place / 4, 0.016) for place, start in enumerate(starts)]
    assert all(0.0 <= due - start < 0.016 for due, start in zip(dues, starts, strict=True))
    assert [round((due - place * 0.004) % 0.016, 6) % 0.016 for place, due in enumerate(dues)] == [0.0] * 4
    assert first_due(5.0, 0.25, 0.0) == 5.0


def test_larger_jobs_are_larger(url: str, observer: Observer, pool: Pool) -> None:
    report = carry_out(pool, Order("push", url, QUEUE, seconds=20, jobs=2, size=100_000))
    assert report.jobs == observer.count() == 2


def test_the_disk_is_timed_and_nothing_stays_on_it(pool: Pool, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    report = carry_out(pool, Order("sync", seconds=20, jobs=5, directory=str(place)))
    assert len(report.replies) == 5
    assert not list(place.iterdir())


def test_a_program_that_cant_connect_says_so_and_takes_the_next_order(url: str, pool: Pool) -> None:
    (program,) = pool.take(1)
    program.prepare(Order("push", "tcp://127.0.0.1:1", QUEUE))
    with pytest.raises(BenchError, match="refused"):
        program.wait_ready()
    assert carry_out(pool, Order("push", url, QUEUE, seconds=20, jobs=1)).jobs == 1


def test_the_bare_loop_is_a_server_that_pyfaktory_understands(pool: Pool, tmp_path: Path) -> None:
    child = Child("bare", python("bench.servers", "bare", str(tmp_path)), tmp_path / "bare.stderr")
    try:
        bare = f"tcp://127.0.0.1:{int(child.read_line())}"
        for _ in range(2):
            assert carry_out(pool, Order("push", bare, QUEUE, "pyfaktory", seconds=20, jobs=3)).jobs == 3
    finally:
        child.stop()


def test_the_counting_forwarder_counts_what_it_forwards(url: str, pool: Pool, tmp_path: Path) -> None:
    port = url.rpartition(":")[2]
    child = Child("count", python("bench.servers", "count", "127.0.0.1", port), tmp_path / "count.stderr")
    try:
        through = f"tcp://127.0.0.1:{int(child.read_line())}"
        carry_out(pool, Order("push", through, QUEUE, seconds=20, jobs=10, size=1000))
        child.write(b"\n")
        up, down = map(int, child.read_line().split())
    finally:
        child.stop()
    assert 10_000 < up < 13_000
    assert 50 <= down < 200


def test_the_constant_server_answers(pool: Pool, tmp_path: Path) -> None:
    child = Child("http", python("bench.servers", "http"), tmp_path / "http.stderr")
    try:
        constant = f"http://127.0.0.1:{int(child.read_line())}"
        report = carry_out(pool, Order("http", constant, QUEUE, seconds=20, jobs=7, path="/jobs"))
    finally:
        child.stop()
    assert (report.jobs, report.error) == (7, "")


def test_the_observer_empties_its_own_queue_only(url: str, observer: Observer, pool: Pool) -> None:
    for queue in (QUEUE, "others"):
        carry_out(pool, Order("push", url, queue, seconds=20, jobs=3))
    observer.empty()
    assert observer.count() == 0
    assert observer.info()["faktory"]["queues"]["others"] == 3


def test_a_round_trip_is_that_of_a_handshake(url: str) -> None:
    assert 0.0 < round_trip(url) < 1.0


def test_a_server_that_isnt_there_is_one_line() -> None:
    with pytest.raises(WireError, match=r"tcp://127\.0\.0\.1:1: .*refused"):
        round_trip("tcp://127.0.0.1:1")
