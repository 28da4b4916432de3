"""Programs around real client libraries, unmodified, on every way to the real Faktory.

The ways that go straight to Faktory prove the programs; the others must not differ from them.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.clients.programs import GO, LIBRARIES, NODE_WORKER, PYFAKTORY, Library
from tests.e2e.conftest import WAYS, Route, RunProgram
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(120)]

QUEUE = "e2e.jobs-1"
TEXTS = ["naïve ☃ 🎉 \u2028", 'quotes " and \\ and \t and \u0000', "日本語テキスト", "<script>&amp;"]
MEGABYTE = "æ" * 500_000


def variety(library: Library) -> list[dict[str, Any]]:
    """Jobs that differ in every field a producer may set."""
    later = (datetime.now(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.123456Z")
    fields: list[dict[str, Any]] = [
        {"args": []},
        {"args": [1, -2, 2.5, 1e100, True, None, "", [], {}]},
        {"args": TEXTS, "custom": {"text": TEXTS[0], "nested": {"list": [1, {"deep": None}]}}},
        {"args": [{"a": {"b": [[["c"]]]}}], "retry": 3, "backtrace": 10},
        {"args": ["no retry"], "retry": 0},
        {"args": ["straight to the morgue"], "retry": -1},
        {"args": ["reserved"], "reserve_for": 600},
        {"args": ["later"], "at": later},
        {"args": [MEGABYTE, TEXTS]},
        {"args": ["again"], "custom": {"locale": "de", "trace": "0-1-2"}},
    ]
    if library is not PYFAKTORY:
        fields.append({"args": ["old"], "created_at": "2020-02-02T02:02:02.020202Z"})
    jobs = [{"retry": 25, **job, "jobtype": "Record", "queue": QUEUE} for job in fields]
    return [{**job, "jid": uuid.uuid4().hex} for job in jobs]


def assert_arrived(faktory: RealFaktory, pushed: list[dict[str, Any]]) -> None:
    """Every job is in Faktory, once, with every field as it was pushed."""

    def stored() -> list[dict[str, Any]]:
        return faktory.stored(QUEUE) + faktory.stored_sorted("scheduled")

    wait_for(lambda: len(stored()) >= len(pushed), what="all jobs are in Faktory")
    found = stored()
    assert sorted(job["jid"] for job in found) == sorted(job["jid"] for job in pushed)
    kept_by_jid = {job["jid"]: job for job in found}
    for job in pushed:
        kept = kept_by_jid[job["jid"]]
        assert {name: kept.get(name) for name in job} == job
        assert kept["created_at"]
        assert ("at" in kept) == ("at" in job)


def commands(faktory: RealFaktory) -> int:
    """How many commands Faktory has run since its start."""
    count: int = faktory.info()["server"]["command_count"]
    return count


def by_jid(job: dict[str, Any]) -> str:
    """The key to sort jobs by."""
    jid: str = job["jid"]
    return jid


def those_that(do: str) -> pytest.MarkDecorator:
    """All libraries whose program does this."""
    able = [library for library in LIBRARIES if do in library.does]
    return pytest.mark.parametrize("library", able, ids=lambda library: library.name)


@those_that("push")
def test_each_pushed_job_arrives_once_and_intact(route: Route, library: Library, run_program: RunProgram) -> None:
    jobs = variety(library)
    program = run_program(library, route.url, do="push", jobs=jobs)
    program.finish()
    assert program.report("pushed") == [job["jid"] for job in jobs]
    assert_arrived(route.faktory, jobs)


@those_that("push-bulk")
def test_each_job_of_a_bulk_push_arrives_once_and_intact(
    route: Route, library: Library, run_program: RunProgram
) -> None:
    jobs = variety(library)
    program = run_program(library, route.url, do="push-bulk", jobs=jobs)
    program.finish()
    assert program.report("pushed") == [job["jid"] for job in jobs]
    assert program.report("refused") == {}
    assert_arrived(route.faktory, jobs)


def test_concurrent_pushes_of_one_program_all_arrive(route: Route, run_program: RunProgram) -> None:
    jobs = [{"jid": uuid.uuid4().hex, "jobtype": "Record", "queue": QUEUE, "args": [n]} for n in range(500)]
    before = commands(route.faktory)
    program = run_program(NODE_WORKER, route.url, do="push-at-once", jobs=jobs)
    program.finish()
    assert_arrived(route.faktory, jobs)
    needed = commands(route.faktory) - before
    if route.way.ack is None:
        assert needed >= len(jobs)
    elif route.way.ack == "upstream":  # nobody waits for company: only what comes together leaves together
        assert needed < len(jobs)
    else:
        assert needed < len(jobs) / 4


def test_the_refused_job_of_a_bulk_push_is_named(route: Route, run_program: RunProgram) -> None:
    good = {"jid": uuid.uuid4().hex, "jobtype": "Record", "queue": QUEUE, "args": []}
    bad = {"jid": uuid.uuid4().hex, "jobtype": "Record", "queue": "no spaces please", "args": []}
    for library in (GO, NODE_WORKER):
        route.faktory.flush()
        program = run_program(library, route.url, do="push-bulk", jobs=[good, bad])
        program.finish()
        assert program.report("pushed") == [good["jid"]]
        assert list(program.report("refused")) == [bad["jid"]]
        assert "queue names must match" in program.report("refused")[bad["jid"]]
        assert_arrived(route.faktory, [good])


def fill(faktory: RealFaktory) -> list[dict[str, Any]]:
    """Puts jobs of all kinds straight into Faktory, for a worker to run."""
    kinds = ["Record"] * 12 + ["Flaky"] * 2 + ["Parent"] * 3
    jobs: list[dict[str, Any]] = [
        {"jid": uuid.uuid4().hex, "jobtype": kind, "args": [n, TEXTS, {"n": n}], "custom": {"n": n}}
        for n, kind in enumerate(kinds)
    ]
    jobs.append({**jobs[0], "jid": uuid.uuid4().hex, "args": [MEGABYTE]})
    jobs = [{**job, "queue": QUEUE, "retry": 7, "reserve_for": 300} for job in jobs]
    with faktory.client() as client:
        assert client.push_bulk(jobs) == {}
    return jobs


@those_that("work")
def test_a_worker_runs_each_job_once_and_settles_it(route: Route, library: Library, run_program: RunProgram) -> None:
    jobs = fill(route.faktory)
    program = run_program(
        library,
        route.url,
        do="work",
        wid=f"worker-{uuid.uuid4().hex[:8]}",
        queue=QUEUE,
        child_queue="e2e.children",
        expect=len(jobs),
    )
    assert program.report("ended") is True
    program.finish()

    # pyfaktory shows a job's handler no more than these.
    shown = ("jid", "args") if library is PYFAKTORY else tuple(jobs[0])
    ran = [{name: job.get(name) for name in shown} for job in program.reports("ran")]
    expected = [{name: job[name] for name in shown} for job in jobs]
    assert sorted(ran, key=by_jid) == sorted(expected, key=by_jid)

    counts = route.faktory.info()["faktory"]
    assert counts["total_processed"] == len(jobs)
    assert counts["total_failures"] == 2
    assert route.faktory.redis("ZCARD", "working") == 0
    assert route.faktory.stored(QUEUE) == []
    flaky = {job["jid"] for job in jobs if job["jobtype"] == "Flaky"}
    retries = route.faktory.stored_sorted("retries")
    assert {job["jid"] for job in retries} == flaky
    assert {job["failure"]["message"] for job in retries} == {"flaky on purpose"}
    parents = sorted(job["jid"] for job in jobs if job["jobtype"] == "Parent")
    children = sorted(job["jid"] for job in route.faktory.stored("e2e.children"))
    assert children == [f"{jid}-child" for jid in parents]


# Half a minute each: `direct` is enough to prove the programs.
@pytest.mark.parametrize(
    "open_route", [way for way in WAYS if way.name != "direct-password"], indirect=True, ids=lambda way: way.name
)
def test_workers_are_quieted_and_terminated(route: Route, run_program: RunProgram) -> None:
    """All libraries side by side, because the Go worker beats every 15 s and can't be told otherwise."""
    workers = {f"worker-{uuid.uuid4().hex[:8]}": library for library in (GO, NODE_WORKER, PYFAKTORY)}
    programs = {
        wid: run_program(library, route.url, do="work", wid=wid, queue=QUEUE, child_queue="c")
        for wid, library in workers.items()
    }
    for program in programs.values():
        program.wait_for_state("started")
    wait_for(lambda: all(wid in route.faktory.web("/busy") for wid in programs), what="Faktory knows them all")
    for wid in programs:
        route.faktory.signal_worker(wid, "quiet")
    for program in programs.values():
        program.wait_for_state("quiet")
    # A FETCH that was sent before is still a wish for a job; Faktory hands it to its Redis as a blocking command.
    wait_for(lambda: route.faktory.waiting_fetches() == 0, what="no FETCH is waiting")
    with route.faktory.client() as client:
        client.push({"jid": uuid.uuid4().hex, "jobtype": "Record", "queue": QUEUE, "args": []})
    for wid in programs:
        route.faktory.signal_worker(wid, "terminate")
    for wid, program in programs.items():
        program.wait(timeout=60)
        assert program.reports("ran") == [], workers[wid].name
        assert program.reports("state")[:2] == ["started", "quiet"]
    assert len(route.faktory.stored(QUEUE)) == 1
