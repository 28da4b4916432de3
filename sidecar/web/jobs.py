"""The routes that take jobs.

| route | body |
| --- | --- |
| `POST /jobs/batch` | `{"jobs": [{"type": …, "args": …}, …]}`; leaves at once |
| `POST /jobs/add`, `/subtract`, `/multiply`, `/divide` | the job's one argument, with the numbers `a` and `b` |
| `POST /jobs` | one job of any type, with any field of a job |

An answer is given when the jobs are where `SIDECAR_ACK` promises: fsynced, in memory, or accepted by upstream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from sidecar.errors import Refusal
from sidecar.protocol.jobs import Job, stamp
from sidecar.web import admission
from sidecar.web.bounds import MAX_JOBS, too_many
from sidecar.web.problems import IN_DOUBT, JobProblem, Problem, from_refusal, is_undecided, refusal_text, unprocessable

if TYPE_CHECKING:
    from sidecar.intake import Intake

STEP: Final = 256  # jobs that are examined before other tasks get their turn: about 4 ms

_encode = msgspec.json.encode


class Enqueued(msgspec.Struct, frozen=True):
    """The answer to a request with one job."""

    job_id: str
    message: str


class BatchEnqueued(msgspec.Struct, frozen=True):
    """The answer to `POST /jobs/batch`, word for word as the guide has it."""

    job_ids: list[str]
    message: str
    total_enqueued: int


class JobRoutes:
    """The endpoints, for one intake.

    Args:
        intake: takes the jobs.
        clock: Unix seconds.
    """

    def __init__(self, intake: Intake, *, clock: Callable[[], float] = time.time) -> None:
        self._intake = intake
        self._clock = clock

    async def operation(self, jobtype: str, request: Request) -> Response:
        """One of the documented operations; the body is its argument."""
        try:
            job = admission.operation(jobtype, await request.body(), stamp(self._clock()))
        except admission.Unfit as unfit:
            raise _invalid([JobProblem(0, unfit.jid, unfit.reason)], jobs=1) from None
        return await self._enqueue(jobtype, job)

    async def single(self, request: Request) -> Response:
        """One job of any type."""
        try:
            jobtype, job = admission.single(await request.body(), stamp(self._clock()))
        except admission.Unfit as unfit:
            raise _invalid([JobProblem(0, unfit.jid, unfit.reason)], jobs=1) from None
        return await self._enqueue(jobtype, job)

    async def batch(self, request: Request) -> Response:
        """Many jobs, all or none of them valid."""
        jobs = await self._admitted(await request.body())
        try:
            verdicts = await self._intake.take(jobs, self._intake.origin(), linger=False)
        except Refusal as refusal:
            raise from_refusal(refusal) from None
        _raise_refused(jobs, verdicts)
        message = f"Successfully enqueued {len(jobs)} jobs in batch"
        return _answer(BatchEnqueued([job.jid for job in jobs], message, len(jobs)))

    async def _enqueue(self, jobtype: str, job: Job) -> Response:
        try:
            verdicts = await self._intake.take([job], self._intake.origin())
        except Refusal as refusal:
            raise from_refusal(refusal) from None
        _raise_refused([job], verdicts)
        return _answer(Enqueued(job.jid, f"Successfully enqueued {jobtype} job"))

    async def _admitted(self, body: bytes) -> list[Job]:
        """The jobs of a batch; other tasks get their turn every `STEP` jobs.

        Raises:
            Problem: 422 with the reason for each bad job, 413 when there are too many.
        """
        try:
            elements = admission.elements(body)
        except admission.Unfit as unfit:
            raise unprocessable(unfit.reason) from None
        if len(elements) > MAX_JOBS:
            raise too_many(len(elements))
        now = stamp(self._clock())
        jobs: list[tuple[int, Job]] = []
        problems: list[JobProblem] = []
        for index, element in enumerate(elements):
            try:
                jobs.append((index, admission.element(element, now)))
            except admission.Unfit as unfit:
                problems.append(JobProblem(index, unfit.jid, unfit.reason))
            if index % STEP == STEP - 1:
                await trio.lowlevel.checkpoint()
        problems += admission.repeated(jobs)
        if problems:
            raise _invalid(sorted(problems, key=lambda problem: problem.index), jobs=len(elements))
        return [job for _, job in jobs]


def _answer(answer: Enqueued | BatchEnqueued) -> Response:
    return Response(_encode(answer), media_type="application/json")


def _invalid(problems: Sequence[JobProblem], *, jobs: int) -> Problem:
    """422 for a request in which some jobs can't be jobs; none of it was enqueued."""
    if jobs == 1:
        return unprocessable(problems[0].detail, problems)
    return unprocessable(f"{len(problems)} of {jobs} jobs are not valid; none was enqueued.", problems)


def _raise_refused(jobs: Sequence[Job], verdicts: Sequence[Refusal | None]) -> None:
    """Nothing when all jobs were taken.

    Raises:
        Problem: 422 with the reason for each job that was refused; 503 when upstream judged none of them.
    """
    refused = [(index, verdict) for index, verdict in enumerate(verdicts) if verdict is not None]
    if not refused:
        return
    if len(refused) == len(jobs) and all(is_undecided(verdict) for _, verdict in refused):
        raise from_refusal(_gravest([verdict for _, verdict in refused]))
    problems = [JobProblem(index, jobs[index].jid, refusal_text(verdict)) for index, verdict in refused]
    job_ids = [job.jid if verdict is None else None for job, verdict in zip(jobs, verdicts, strict=True)]
    detail = problems[0].detail if len(jobs) == 1 else f"{len(refused)} of {len(jobs)} jobs were refused."
    raise unprocessable(detail, problems, job_ids=job_ids)


def _gravest(refusals: Sequence[Refusal]) -> Refusal:
    """One that says in doubt, if any does: such a request must not be sent again without thought."""
    return next((refusal for refusal in refusals if refusal.message.startswith(IN_DOUBT)), refusals[0])
