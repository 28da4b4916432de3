"""The routes that take jobs: what the guide documents, and what a careful user expects beyond."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from sidecar.errors import Refusal
from sidecar.protocol.jobs import Job
from sidecar.web.bounds import MAX_JOBS
from tests.web.conftest import Post
from tests.web.serving import Client, RecordingIntake

GENERATED = re.compile("[0-9a-f]{24}")


async def test_the_guides_batch_is_answered_in_its_words(post: Post, intake: RecordingIntake) -> None:
    answer = await post(
        "/jobs/batch",
        """{
    "jobs": [
      {"type": "Add", "args": {"a": 1, "b": 2}},
      {"type": "Subtract", "args": {"a": 10, "b": 5}},
      {"type": "Multiply", "args": {"a": 3, "b": 4}}
    ]
  }""",
        ("Content-Type", "application/json"),
    )

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["job_ids", "message", "total_enqueued"]
    assert document["message"] == "Successfully enqueued 3 jobs in batch"
    assert document["total_enqueued"] == 3
    assert document["job_ids"] == [job.jid for job in intake.jobs]
    assert all(GENERATED.fullmatch(jid) for jid in document["job_ids"])
    assert [payload["jobtype"] for payload in intake.payloads] == ["Add", "Subtract", "Multiply"]
    assert [payload["args"] for payload in intake.payloads] == [
        [{"a": 1, "b": 2}],
        [{"a": 10, "b": 5}],
        [{"a": 3, "b": 4}],
    ]
    assert intake.requests == [(3, False)], "a batch doesn't linger"


async def test_one_job_in_a_batch_is_counted_as_the_guide_does(post: Post) -> None:
    answer = await post("/jobs/batch", {"jobs": [{"type": "Add", "args": {"a": 1, "b": 2}}]})

    assert answer.json()["message"] == "Successfully enqueued 1 jobs in batch"


@pytest.mark.parametrize("jobtype", ["Add", "Subtract", "Multiply", "Divide"])
async def test_operation(post: Post, intake: RecordingIntake, jobtype: str) -> None:
    answer = await post(f"/jobs/{jobtype.lower()}", '{"a": 1.50, "b": 0,\n "request_id": "req-1"}')

    assert answer.status == 200
    assert answer.json() == {"job_id": intake.jobs[0].jid, "message": f"Successfully enqueued {jobtype} job"}
    assert GENERATED.fullmatch(intake.jobs[0].jid)
    assert b'"args":[{"a": 1.50, "b": 0,  "request_id": "req-1"}]' in intake.jobs[0].payload, "kept byte for byte"
    assert intake.payloads[0]["jobtype"] == jobtype
    assert intake.requests == [(1, True)], "a single job waits for company"


async def test_bodies_without_a_json_content_type_are_taken(post: Post) -> None:
    answer = await post("/jobs/add", '{"a": 1, "b": 2}', ("Content-Type", "application/x-www-form-urlencoded"))

    assert answer.status == 200


async def test_every_request_is_an_order_domain_of_its_own(post: Post, intake: RecordingIntake) -> None:
    for _ in range(3):
        await post("/jobs/add", {"a": 1, "b": 2})

    assert intake.origins == 3


async def test_a_job_of_any_type_with_every_field(post: Post, intake: RecordingIntake) -> None:
    job = {
        "jid": "my-own-jid",
        "type": "SendInvoice",
        "args": [1, "two", None],
        "queue": "mail",
        "at": "2030-01-31T08:30:00.5+01:00",
        "retry": -1,
        "reserve_for": 60,
        "backtrace": 10,
        "custom": {"locale": "de"},
        "priority": 7,
    }
    answer = await post("/jobs", job)

    assert answer.json() == {"job_id": "my-own-jid", "message": "Successfully enqueued SendInvoice job"}
    stored = intake.payloads[0]
    assert stored.pop("created_at")
    assert stored == {("jobtype" if key == "type" else key): value for key, value in job.items()}


async def test_jobtype_is_understood_too_and_null_is_as_absent(post: Post, intake: RecordingIntake) -> None:
    answer = await post("/jobs", {"jobtype": "X", "args": {"only": "argument"}, "queue": None, "jid": None, "at": ""})

    assert answer.status == 200
    stored = intake.payloads[0]
    assert stored["args"] == [{"only": "argument"}]
    assert "queue" not in stored
    assert GENERATED.fullmatch(stored["jid"])


async def test_a_job_that_only_upstream_can_judge_is_confirmed(post: Post, intake: RecordingIntake) -> None:
    await post("/jobs", {"type": "X", "args": [], "custom": {"unique_for": 60}})

    assert intake.jobs[0].confirmed


OPERAND_ERRORS = [
    ("{}", "missing: `a`"),
    ('{"a": 1}', "missing: `b`"),
    ('{"a": "1", "b": 2}', "a number"),
    ('{"a": true, "b": 2}', "a number"),
    ('{"a": null, "b": 2}', "a number"),
    ('{"a": 1e999, "b": 2}', "out of range"),
    (f'{{"a": {"9" * 400}, "b": 2}}', "out of range"),
    ("[1, 2]", "array"),
    ("3", "int"),
    ('{"a": NaN, "b": 2}', "not JSON"),
    ('{"a": 1, "b": 2', "not JSON"),
    ("", "not JSON"),
    ("\ufeff{}", "not JSON"),
    ("a=1&b=2", "not JSON"),
    ('{"a": 1, "b": 2, "c": 1e999}', "float64"),
    (f'{{"a": 1, "b": 2, "c": {"[" * 101}{"]" * 101}}}', "100 levels"),
    (f"{'[' * 100_000}", "100 levels"),
]


@pytest.mark.parametrize(("body", "reason"), OPERAND_ERRORS)
async def test_bad_operands_are_refused_with_the_reason(
    post: Post, intake: RecordingIntake, body: str, reason: str
) -> None:
    answer = await post("/jobs/add", body)

    assert answer.status == 422
    document = answer.problem()
    assert reason in document["detail"]
    assert document["errors"] == [{"index": 0, "job_id": None, "detail": document["detail"]}]
    assert document["total_enqueued"] == 0
    assert not intake.jobs


async def test_bytes_that_are_not_utf8_are_refused(post: Post, intake: RecordingIntake) -> None:
    answer = await post("/jobs/add", b'{"a": 1, "b": 2, "c": "\xff"}')

    assert answer.status == 422
    assert "Unicode" in answer.problem()["detail"]
    assert not intake.jobs


JOB_ERRORS: list[tuple[Any, str]] = [
    (1, "must be an object"),
    ("text", "must be an object"),
    (None, "must be an object"),
    ({}, "type is missing"),
    ({"args": []}, "type is missing"),
    ({"type": "", "args": []}, "type must not be empty"),
    ({"type": 1, "args": []}, "type must be a string"),
    ({"type": "X", "jobtype": "Y", "args": []}, "differ"),
    ({"type": "X"}, "args is missing"),
    ({"type": "X", "args": "text"}, "args must be"),
    ({"type": "X", "args": 3}, "args must be"),
    ({"type": "X", "args": None}, "args must be"),
    ({"type": "Add", "args": {"a": 1}}, "missing: `b`"),
    ({"type": "Divide", "args": [1, 2]}, "one object"),
    ({"type": "Divide", "args": []}, "one object"),
    ({"type": "Multiply", "args": [{"a": 1, "b": "2"}]}, "a number"),
    ({"type": "X", "args": [], "jid": "short"}, "jid must be"),
    ({"type": "X", "args": [], "jid": 12345678}, "jid must be"),
    ({"type": "X", "args": [], "queue": "no spaces"}, "queue must be"),
    ({"type": "X", "args": [], "at": "tomorrow"}, "RFC 3339"),
    ({"type": "X", "args": [], "at": "2030-02-30T00:00:00Z"}, "RFC 3339"),
    ({"type": "X", "args": [], "retry": 1.5}, "retry must be"),
    ({"type": "X", "args": [], "retry": "3"}, "retry must be"),
    ({"type": "X", "args": [], "retry": 2**63}, "retry must be"),
    ({"type": "X", "args": [], "reserve_for": 86401}, "86400"),
    ({"type": "X", "args": [], "backtrace": True}, "backtrace must be"),
    ({"type": "X", "args": [], "custom": [1]}, "custom must be"),
    ({"type": "X", "args": [], "failure": {"retry_count": 1}}, "failure must be left out"),
    ({"type": "X", "args": [], "created_at": 5}, "created_at must be"),
    ({"type": "X", "args": [], "Queue": "q"}, "is queue meant"),
    ({"type": "X", "args": [], "reserve_fo": 5}, "is reserve_for meant"),
    ({"type": "X", "args": [], **{f"field{i}": i for i in range(40)}}, "at most 32"),
]


@pytest.mark.parametrize(("job", "reason"), JOB_ERRORS)
async def test_bad_jobs_are_refused_with_the_reason(post: Post, intake: RecordingIntake, job: Any, reason: str) -> None:
    answer = await post("/jobs", json.dumps(job))

    assert answer.status == 422
    assert reason in answer.problem()["detail"]
    assert not intake.jobs


async def test_a_batch_names_each_bad_job_and_enqueues_none(post: Post, intake: RecordingIntake) -> None:
    good = {"type": "Add", "args": {"a": 1, "b": 2}}
    jobs: list[Any] = [job for bad, _ in JOB_ERRORS for job in (good, bad)]

    answer = await post("/jobs/batch", {"jobs": jobs})

    assert answer.status == 422
    document = answer.problem()
    assert [error["index"] for error in document["errors"]] == list(range(1, len(jobs), 2))
    for error, (_, reason) in zip(document["errors"], JOB_ERRORS, strict=True):
        assert reason in error["detail"]
    assert document["detail"] == f"{len(JOB_ERRORS)} of {len(jobs)} jobs are not valid; none was enqueued."
    assert not intake.requests


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ("{}", '"jobs" is missing'),
        ('{"jobs": {}}', "must be a list"),
        ('{"jobs": null}', "must be a list"),
        ('{"jobs": []}', "is empty"),
        ('{"jobs": [{"type": "X", "args": []}]} ...', "not JSON"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused(post: Post, intake: RecordingIntake, body: str, reason: str) -> None:
    answer = await post("/jobs/batch", body)

    assert answer.status == 422
    assert reason in answer.problem()["detail"]
    assert not intake.requests


async def test_a_jid_that_occurs_twice_is_refused_at_each_place(post: Post, intake: RecordingIntake) -> None:
    jobs: list[dict[str, Any]] = [
        {"type": "X", "args": [], "jid": jid} for jid in ("same-jid-1", "other-jid", "same-jid-1")
    ]

    answer = await post("/jobs/batch", {"jobs": jobs})

    assert answer.status == 422
    errors = answer.problem()["errors"]
    assert [(error["index"], error["job_id"]) for error in errors] == [(0, "same-jid-1"), (2, "same-jid-1")]
    assert not intake.requests


async def test_the_bound_on_jobs_is_named(post: Post, intake: RecordingIntake) -> None:
    job = {"type": "X", "args": []}
    largest = await post("/jobs/batch", {"jobs": [job] * MAX_JOBS})
    larger = await post("/jobs/batch", {"jobs": [job] * (MAX_JOBS + 1)})

    assert largest.status == 200
    assert len(set(largest.json()["job_ids"])) == MAX_JOBS
    assert larger.status == 413
    assert "10000 jobs" in larger.problem()["detail"]
    assert len(intake.requests) == 1


async def test_upstreams_refusals_are_told_job_by_job(post: Post, intake: RecordingIntake) -> None:
    def judge(jobs: Sequence[Job]) -> list[Refusal | None]:
        return [None, Refusal("Job not unique", code="NOTUNIQUE"), None]

    intake.judge = judge
    jobs = [{"type": "X", "args": [i], "jid": f"job-number-{i}"} for i in range(3)]

    answer = await post("/jobs/batch", {"jobs": jobs})

    assert answer.status == 422
    document = answer.problem()
    assert document["job_ids"] == ["job-number-0", None, "job-number-2"]
    assert document["total_enqueued"] == 2
    assert document["errors"] == [{"index": 1, "job_id": "job-number-1", "detail": "NOTUNIQUE Job not unique"}]


async def test_a_refused_single_job_says_why(post: Post, intake: RecordingIntake) -> None:
    intake.judge = lambda jobs: [Refusal("Job not unique", code="NOTUNIQUE")]

    answer = await post("/jobs/add", {"a": 1, "b": 2})

    assert answer.status == 422
    document = answer.problem()
    assert document["detail"] == "NOTUNIQUE Job not unique"
    assert document["job_ids"] == [None]


@pytest.mark.parametrize("path", ["/jobs/batch", "/jobs/add"])
@pytest.mark.parametrize(
    ("message", "retry_after"),
    [("not sent: journal full: 1.0 of 1.0 GiB", "5"), ("in doubt: Faktory did not answer in time", None)],
)
async def test_what_may_succeed_later_is_503(
    post: Post, intake: RecordingIntake, path: str, message: str, retry_after: str | None
) -> None:
    def judge(jobs: Sequence[Job]) -> list[Refusal | None]:
        raise Refusal(message, retry=True)

    intake.judge = judge
    body = {"a": 1, "b": 2} if path == "/jobs/add" else {"jobs": [{"type": "X", "args": []}]}

    answer = await post(path, body)

    assert answer.status == 503
    assert answer.problem()["detail"] == message
    assert answer.headers.get("retry-after") == retry_after


async def test_jobs_that_nobody_judged_are_503_and_doubt_is_what_is_told(post: Post, intake: RecordingIntake) -> None:
    intake.judge = lambda jobs: [Refusal("not sent: Faktory is too slow"), Refusal("in doubt: no answer in time")]

    answer = await post("/jobs/batch", {"jobs": [{"type": "X", "args": []}] * 2})

    assert answer.status == 503
    assert answer.problem()["detail"] == "in doubt: no answer in time"
    assert "retry-after" not in answer.headers


async def test_methods_that_a_path_does_not_take(client: Client) -> None:
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = await client.request(method, "/jobs/add")
        assert answer.status == 405
        assert answer.headers["allow"] == "OPTIONS, POST"
        if method != "HEAD":
            answer.problem()

    options = await client.request("OPTIONS", "/jobs/batch")
    assert options.status == 204
    assert options.headers["allow"] == "OPTIONS, POST"
    assert options.body == b""


async def test_paths_that_there_are_not(client: Client) -> None:
    for path in ("/nothing", "/jobs/power", "/jobs/add/", "//jobs/add", "/jobs/add%00"):
        answer = await client.request("POST", path, "{}")
        assert answer.status == 404, path
        answer.problem()


async def test_a_compressed_body_is_refused(post: Post) -> None:
    answer = await post("/jobs/add", b"\x1f\x8b", ("Content-Encoding", "gzip"))

    assert answer.status == 415
    answer.problem()


@pytest.mark.usefixtures("defects_expected")
async def test_a_mistake_of_ours_is_a_500_and_the_server_lives(post: Post, intake: RecordingIntake, port: int) -> None:
    def judge(jobs: Sequence[Job]) -> list[Refusal | None]:
        raise KeyError("a bug")

    intake.judge = judge
    answer = await post("/jobs/add", {"a": 1, "b": 2})
    assert answer.status == 500
    answer.problem()

    intake.judge = None
    other = await Client.connect(port)
    async with other.stream:
        assert (await other.request("POST", "/jobs/add", {"a": 1, "b": 2})).status == 200


async def test_pretty_printed_jobs_stay_one_line(post: Post, intake: RecordingIntake) -> None:
    body = json.dumps({"jobs": [{"type": "X", "args": {"text": "line\nbreak"}, "custom": {"a": [1, 2]}}]}, indent=2)

    await post("/jobs/batch", body.replace("\n", "\r\n"))

    assert b"\n" not in intake.jobs[0].payload
    assert b"\r" not in intake.jobs[0].payload
    assert intake.payloads[0]["args"] == [{"text": "line\nbreak"}]
