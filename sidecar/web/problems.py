"""What a client is told when something is wrong: one JSON shape for all errors (RFC 9457, problem details)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from sidecar.errors import Refusal

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"  # seconds; a full journal or an upstream that is away seldom changes sooner
NOT_SENT = "not sent:"  # how a refusal begins when the job is certainly not enqueued
IN_DOUBT = "in doubt:"  # how it begins when the job may have been enqueued all the same


class JobProblem(msgspec.Struct, frozen=True):
    """What is wrong with one job of a request.

    Args:
        index: its place in the request, from 0.
        job_id: the id it has or would have had, None when it got none.
        detail: the reason, for a person.
    """

    index: int
    job_id: str | None
    detail: str


class Problem(Exception):
    """An answer with an error.

    Args:
        status: the HTTP status, 400-599.
        detail: one or two sentences for the person who reads them: what is wrong and what would be right.
        headers: further header fields of the answer.
        members: further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def body(self) -> bytes:
        """The document. Its type is `about:blank`: the status says all that a program needs."""
        return msgspec.json.encode(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                **self.members,
            }
        )

    def response(self) -> Response:
        """The document as an answer that no cache keeps."""
        headers = {"cache-control": "no-store", **self.headers}
        return Response(self.body(), self.status, headers, MEDIA_TYPE)


def unprocessable(
    detail: str, errors: Sequence[JobProblem] = (), *, job_ids: Sequence[str | None] | None = None
) -> Problem:
    """422: what was sent can't become jobs, or upstream refused some of them.

    Args:
        detail: the summary.
        errors: one entry a bad job.
        job_ids: the ids of a request upstream judged, None where a job was refused; without it, none was taken.
    """
    members: dict[str, object] = {"errors": list(errors), "total_enqueued": 0}
    if job_ids is not None:
        members["job_ids"] = list(job_ids)
        members["total_enqueued"] = sum(job_id is not None for job_id in job_ids)
    return Problem(422, detail, members=members)


def is_undecided(refusal: Refusal) -> bool:
    """Whether upstream didn't judge the job: it was not sent, or sent and not answered in time."""
    return refusal.retry or refusal.message.startswith((NOT_SENT, IN_DOUBT))


def from_refusal(refusal: Refusal) -> Problem:
    """The answer for a request of which no job was taken: 503 where upstream judged none, else 422.

    A request in doubt gets no `Retry-After`: sending it again could enqueue its jobs twice.
    """
    if not is_undecided(refusal):
        return unprocessable(refusal_text(refusal))
    headers = {} if refusal.message.startswith(IN_DOUBT) else {"retry-after": RETRY_AFTER}
    return Problem(503, refusal.message, headers=headers)


def refusal_text(refusal: Refusal) -> str:
    """A refusal's own words, with its code where that says more than `ERR`."""
    return refusal.message if refusal.code == "ERR" else f"{refusal.code} {refusal.message}"
