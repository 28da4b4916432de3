"""What the OpenAPI document says about the routes that take jobs: schemas, examples, answers.

The document is OpenAPI 3.1, whose schemas are JSON Schema. They describe what is taken; the rules themselves are those
of `admission` and `protocol.jobs`.
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.protocol.jobs import MAX_RESERVE_FOR, MIN_JID
from sidecar.web.admission import JID_BYTES
from sidecar.web.bounds import BODY_SECONDS, MAX_BODY, MAX_JOBS
from sidecar.web.problems import MEDIA_TYPE

Schema = dict[str, Any]

_JID: Final = "0f5c2a9e41d37b86a0c4e1f2"[: JID_BYTES * 2]
_INT64: Final[Schema] = {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1}
_ADD: Final[Schema] = {"type": "Add", "args": {"a": 1, "b": 2}}

BATCH_EXAMPLE: Final[Schema] = {
    "jobs": [
        _ADD,
        {"type": "Subtract", "args": {"a": 10, "b": 5}},
        {"type": "Multiply", "args": {"a": 3, "b": 4}},
    ]
}
_WITH_IDS_EXAMPLE: Final[Schema] = {
    "jobs": [
        {"type": "Add", "args": {"a": 1, "b": 2, "request_id": "req-1"}},
        {"type": "Multiply", "args": {"a": 5, "b": 10, "request_id": "req-2"}},
    ]
}
_JOB_EXAMPLE: Final[Schema] = {
    "type": "SendInvoice",
    "args": [4711, {"copy": True}],
    "queue": "mail",
    "retry": 5,
    "at": "2030-01-31T08:30:00Z",
}

SCHEMAS: Final[Schema] = {
    "Operands": {
        "type": "object",
        "description": "The argument of an operation. Other keys, such as `request_id`, are kept.",
        "required": ["a", "b"],
        "properties": {
            "a": {"type": "number", "description": "Finite, as float64 has it."},
            "b": {"type": "number", "description": "Finite. Division by 0 is left to the worker, whose job fails."},
        },
        "additionalProperties": True,
        "examples": [{"a": 1, "b": 2}],
    },
    "Job": {
        "type": "object",
        "description": "One job. Fields that Faktory doesn't know are let through unless they look like a slip.",
        "required": ["type", "args"],
        "properties": {
            "type": {"type": "string", "minLength": 1, "description": "Its type (`jobtype` is understood too)."},
            "args": {
                "type": ["object", "array"],
                "description": "An array of arguments, or an object that is the only argument. "
                "Add, Subtract, Multiply and Divide must have one object with the finite numbers `a` and `b`.",
            },
            "jid": {
                "type": ["string", "null"],
                "minLength": MIN_JID,
                "description": f"Its id; without one it gets {JID_BYTES * 2} hexadecimal characters.",
            },
            "queue": {
                "type": ["string", "null"],
                "pattern": "^[a-zA-Z0-9._-]*$",
                "description": "Its queue, `default` where absent or empty.",
            },
            "at": {
                "type": ["string", "null"],
                "description": "When it is to run (RFC 3339); at once where absent or empty.",
            },
            "retry": {**_INT64, "description": "How often it is tried again when it fails; 25 where absent."},
            "reserve_for": {
                **_INT64,
                "maximum": MAX_RESERVE_FOR,
                "description": "Seconds that a worker may take; 1,800 where absent.",
            },
            "backtrace": {**_INT64, "description": "Lines of a backtrace to keep when it fails."},
            "custom": {"type": ["object", "null"], "description": "Data for middleware; may hold `unique_for`."},
            "created_at": {"type": ["string", "null"], "description": "Set by the sidecar where absent or empty."},
        },
        "additionalProperties": True,
        "examples": [_JOB_EXAMPLE],
    },
    "Batch": {
        "type": "object",
        "required": ["jobs"],
        "properties": {
            "jobs": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_JOBS,
                "items": {"$ref": "#/components/schemas/Job"},
                "description": "All of them are taken, or none. No `jid` may occur twice.",
            }
        },
        "examples": [BATCH_EXAMPLE],
    },
    "Enqueued": {
        "type": "object",
        "required": ["job_id", "message"],
        "properties": {"job_id": {"type": "string"}, "message": {"type": "string"}},
    },
    "BatchEnqueued": {
        "type": "object",
        "required": ["job_ids", "message", "total_enqueued"],
        "properties": {
            "job_ids": {"type": "array", "items": {"type": "string"}, "description": "In the order of the request."},
            "message": {"type": "string"},
            "total_enqueued": {"type": "integer", "minimum": 1},
        },
    },
    "Problem": {
        "type": "object",
        "description": "Problem details (RFC 9457): the one shape of all errors.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"const": "about:blank"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is wrong and what would be right."},
        },
    },
    "JobsProblem": {
        "description": "What is wrong with which job.",
        "allOf": [{"$ref": "#/components/schemas/Problem"}],
        "required": ["errors", "total_enqueued"],
        "properties": {
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index", "job_id", "detail"],
                    "properties": {
                        "index": {"type": "integer", "minimum": 0, "description": "From 0."},
                        "job_id": {"type": ["string", "null"]},
                        "detail": {"type": "string"},
                    },
                },
            },
            "total_enqueued": {"type": "integer", "minimum": 0},
            "job_ids": {
                "type": "array",
                "items": {"type": ["string", "null"]},
                "description": "Where upstream judged the jobs: in the order of the request, null where refused.",
            },
        },
    },
}
SECURITY_SCHEMES: Final[Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`SIDECAR_HTTP_TOKEN`, where it is set."},
    "basic": {"type": "http", "scheme": "basic", "description": "The same token as password, any user name."},
}
SECURITY: Final[list[dict[str, list[str]]]] = [{}, {"bearer": []}, {"basic": []}]

_TOO_MUCH: Final = f"More than {MAX_BODY} bytes (32 MiB), or more than {MAX_JOBS:,} jobs."
_PROBLEMS: Final[dict[int, str]] = {
    400: "Not HTTP/1.1.",
    401: "The token is missing or wrong.",
    403: "A page of another web site asked.",
    405: "Another method than the path takes; `Allow` names those.",
    408: f"The body did not arrive within {BODY_SECONDS:.0f} s.",
    413: _TOO_MUCH,
    415: "A `Content-Encoding`.",
    421: "Only loopback is bound, and `Host` isn't loopback.",
    431: "The head of the request is too large.",
    500: "A mistake of the sidecar.",
    503: "No job was taken: the journal is full or Faktory is away. `detail` begins with `not sent:`, or with "
    "`in doubt:` where the jobs may have been enqueued; then there is no `Retry-After`.",
}


def _content(schema: str, examples: dict[str, Schema] | None = None, *, media_type: str = "application/json") -> Schema:
    content: Schema = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {media_type: content}


def body(schema: str, examples: dict[str, Schema]) -> Schema:
    """A request body for `openapi_extra`."""
    return {"requestBody": {"required": True, "content": _content(schema, examples)}}


def answers(schema: str, example: Schema) -> dict[int | str, Schema]:
    """Every answer of a route that takes jobs."""
    found: dict[int | str, Schema] = {
        200: {"description": "Enqueued.", "content": _content(schema, {"enqueued": example})},
        422: {
            "description": "No job: the reason for each bad one. Or upstream refused some (`job_ids` is there).",
            "content": _content("JobsProblem", media_type=MEDIA_TYPE),
        },
    }
    for status, description in _PROBLEMS.items():
        found[status] = {"description": description, "content": _content("Problem", media_type=MEDIA_TYPE)}
    found[503]["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


BATCH_BODY: Final = body("Batch", {"three jobs": BATCH_EXAMPLE, "with request ids": _WITH_IDS_EXAMPLE})
BATCH_ANSWERS: Final = answers(
    "BatchEnqueued",
    {"job_ids": [_JID], "message": "Successfully enqueued 1 jobs in batch", "total_enqueued": 1},
)
JOB_BODY: Final = body("Job", {"any type": _JOB_EXAMPLE, "documented type": _ADD})
JOB_ANSWERS: Final = answers("Enqueued", {"job_id": _JID, "message": "Successfully enqueued SendInvoice job"})
OPERANDS_BODY: Final = body("Operands", {"two numbers": {"a": 1, "b": 2}})


def operation_answers(jobtype: str) -> dict[int | str, Schema]:
    """The answers of one of the documented operations."""
    return answers("Enqueued", {"job_id": _JID, "message": f"Successfully enqueued {jobtype} job"})
