"""From the JSON of a request to jobs that Faktory is certain to accept, or to the reason why not.

The last word has `protocol.jobs.examine`, the same rules as for a `PUSH`: a job that would be doubtful there has no
upstream to ask here, so it is refused, with a reason. What a client wrote as `args`, `custom` and so on is kept byte
for byte (numbers keep their digits); only line breaks between JSON tokens become spaces, as a command is one line.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Raw

from sidecar.protocol.jobs import DEFAULT_RETRY, MAX_DEPTH, MAX_RESERVE_FOR, Job, examine
from sidecar.protocol.large import LARGE
from sidecar.protocol.lines import MAX_LINE
from sidecar.protocol.names import folded
from sidecar.web.problems import JobProblem

DOCUMENTED: Final = frozenset(["Add", "Subtract", "Multiply", "Divide"])
JID_BYTES: Final = 12  # 24 hexadecimal characters, as much chance as Faktory's own clients give
JIDS_AT_ONCE: Final = 64
MAX_PAYLOAD: Final = MAX_LINE - 1024  # bytes of one job: with the verb and the stamps it must fit into a line
MAX_UNKNOWN: Final = 32  # fields of a job that Faktory doesn't know: each is held against the known names
REASON_TEXT: Final = 200  # characters of a client's own text that a reason repeats

_NULL: Final = b"null"
_BREAK: Final = re.compile(rb"[\r\n]")
_RULES: Final[Mapping[str, str]] = {
    "jid": "jid must be a string of 8 characters or more",
    "queue": "queue must be a name of letters, digits, '.', '_' and '-'",
    "at": "at must be an RFC 3339 time such as 2030-01-31T08:30:00Z",
    "reserve_for": f"reserve_for must be a whole number of seconds, at most {MAX_RESERVE_FOR}",
    "retry": "retry must be a whole number",
    "backtrace": "backtrace must be a whole number",
    "custom": "custom must be an object whose numbers float64 can hold",
    "created_at": "created_at must be a string",
    "enqueued_at": "enqueued_at must be a string",
    "failure": "failure must be left out: Faktory writes it itself",
}
_FIELDS: Final = ("type", "jobtype", "args", *_RULES)
_PROBE: Final = b'{"jid":"0123456789","jobtype":"x","args":[],%b:%b}'
_PROBE_ARGS: Final = b'{"jid":"0123456789","jobtype":"x","args":%b}'
_OPERANDS_WANTED: Final = 'must have the finite numbers "a" and "b"'

_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Operands(msgspec.Struct):
    """What Add, Subtract, Multiply and Divide need; other keys are kept and not looked at."""

    a: float
    b: float


class _Batch(msgspec.Struct):
    jobs: list[Raw]


_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_batch = msgspec.json.Decoder(_Batch).decode
_decode_operands = msgspec.json.Decoder(Operands).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


class Unfit(Exception):
    """Why something can't be a job. Its text is for the client.

    Args:
        reason: what is wrong and what would be right.
        jid: the job's own id, as far as it has a usable one.
    """

    def __init__(self, reason: str, jid: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.jid = jid


def operation(jobtype: str, body: bytes, stamp: bytes) -> Job:
    """The job of `/jobs/add` and its kind: the body is the one argument.

    Args:
        jobtype: one of `DOCUMENTED`.
        body: a JSON object with the numbers `a` and `b`; whatever else it holds is kept.
        stamp: the time for `created_at`.

    Raises:
        Unfit: with the reason.
    """
    argument = _one_line(_checked_json(body))
    _check_operands(argument, "the body")
    return _examined({}, jobtype, [b"[", argument, b"]"], stamp)


def single(body: bytes, stamp: bytes) -> tuple[str, Job]:
    """The job of `POST /jobs`, a body that is one job, and its type.

    Raises:
        Unfit: with the reason.
    """
    return _job(_checked_json(body), stamp)


def elements(body: bytes) -> list[Raw]:
    """The undecoded jobs of a `/jobs/batch` body, at least one.

    Raises:
        Unfit: the body has no such list.
    """
    try:
        jobs = _decode_batch(body).jobs
    except _BAD_JSON:
        raise Unfit(_why_no_batch(body)) from None
    if not jobs:
        raise Unfit('"jobs" is empty: send at least one job')
    return jobs


def element(raw: Raw, stamp: bytes) -> Job:
    """One element of a batch as a job.

    Raises:
        Unfit: with the reason.
    """
    return _job(raw, stamp)[1]


def repeated(jobs: Sequence[tuple[int, Job]]) -> list[JobProblem]:
    """A problem for each job whose id another job of the request has too: their outcomes could not be told apart.

    Args:
        jobs: with their places in the request.
    """
    counts = Counter(job.jid for _, job in jobs)
    if len(counts) == len(jobs):
        return []
    return [
        JobProblem(index, job.jid, f"jid {_quoted(job.jid)} is used {counts[job.jid]} times in this request")
        for index, job in jobs
        if counts[job.jid] > 1
    ]


def _checked_json(body: bytes) -> bytes:
    """The body, when it is JSON, without white space around it."""
    try:
        msgspec.json.decode(body, type=Raw)
    except RecursionError:
        raise Unfit(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unfit(f"the body is not JSON: {_json_error(error)}") from None
    return body.strip()


def _json_error(error: Exception) -> str:
    return str(error).removeprefix("JSON is malformed: ") or "it is malformed"


def _why_no_batch(body: bytes) -> str:
    try:
        fields = _decode_fields(_checked_json(body))
    except Unfit as unfit:
        return unfit.reason
    except _BAD_JSON:
        return 'the body must be an object with the list "jobs"'
    if "jobs" not in fields:
        return '"jobs" is missing: send {"jobs": [{"type": "Add", "args": {"a": 1, "b": 2}}]}'
    return '"jobs" must be a list of jobs'


def _job(element: bytes, stamp: bytes) -> tuple[str, Job]:
    """The type, and the job that an object with `type`, `args` and other fields of a job describes."""
    try:
        fields = _decode_fields(element)
    except RecursionError:
        raise Unfit(f"the job is nested deeper than {MAX_DEPTH} levels") from None
    except _BAD_JSON:
        raise Unfit('a job must be an object such as {"type": "Add", "args": {"a": 1, "b": 2}}') from None
    given = fields.pop("args", None)
    args = bytes(given) if given is not None and len(given) <= LARGE else given
    rest = {key: bytes(value) for key, value in fields.items()}
    jobtype = _pop_type(rest)
    if args is None:
        raise Unfit("args is missing: an object (the only argument) or an array of arguments", _own_jid(rest))
    try:
        return jobtype, _examined(rest, jobtype, _arguments(jobtype, _one_line(args)), stamp)
    except Unfit as unfit:
        raise Unfit(unfit.reason, _own_jid(rest)) from None


def _pop_type(fields: dict[str, bytes]) -> str:
    """Take the type out of a job's fields: `type`, as in the guide, or `jobtype`, as in Faktory's protocol."""
    given = [value for name in ("type", "jobtype") if (value := fields.pop(name, None)) is not None]
    if not given:
        raise Unfit("type is missing: the name of the job's type, such as Add", _own_jid(fields))
    try:
        names = {_decode_text(value) for value in given}
    except _BAD_JSON:
        raise Unfit("type must be a string", _own_jid(fields)) from None
    name = names.pop()
    if names:
        raise Unfit("type and jobtype differ: give one of them", _own_jid(fields))
    if not name:
        raise Unfit("type must not be empty", _own_jid(fields))
    return name


def _arguments(jobtype: str, args: bytes) -> list[bytes]:
    """The job's `args` as Faktory wants them, an array, in pieces: a large one isn't copied."""
    start = args[:1] if type(args) is bytes else bytes(memoryview(args)[:1])
    if start == b"{":
        array: list[bytes] = [b"[", args, b"]"]
        if jobtype in DOCUMENTED:
            _check_operands(args, f"args of {jobtype}")
    elif start == b"[":
        array = [args]
        if jobtype in DOCUMENTED:
            arguments = _decode_array(args)
            if len(arguments) != 1:
                raise Unfit(f"args of {jobtype} {_OPERANDS_WANTED}, as an object or as an array of one object")
            _check_operands(bytes(arguments[0]), f"args of {jobtype}")
    else:
        raise Unfit("args must be an object (the only argument) or an array of arguments")
    return array


def _check_operands(argument: bytes, where: str) -> None:
    try:
        _decode_operands(argument)
    except _BAD_JSON as error:
        raise Unfit(f"{where} {_OPERANDS_WANTED} ({_operand_error(error)})") from None


def _operand_error(error: Exception) -> str:
    text = str(error).replace("Object missing required field `", "missing: `").replace(" - at `$.", ", in `")
    return text.replace("`float`", "a number")


def _examined(fields: Mapping[str, bytes], jobtype: str, args: Sequence[bytes], stamp: bytes) -> Job:
    """The job, when Faktory is certain to accept it.

    Raises:
        Unfit: with the reason.
    """
    pieces = [b'{"jobtype":', msgspec.json.encode(jobtype), b',"args":', *args]
    if "jid" not in fields or fields["jid"] == _NULL:
        pieces[0] = b'{"jid":"%b","jobtype":' % next(_jids)
    for key, value in fields.items():
        if value != _NULL:
            pieces.append(b",%b:%b" % (msgspec.json.encode(key), _one_line(value)))
    if len(args[len(args) // 2]) > LARGE:  # stamped here, it isn't copied once more
        pieces += [b"" if fields.get(key, _NULL) != _NULL else stamp_of for key, stamp_of in _stamps(stamp)]
    payload = b"".join([*pieces, b"}"])
    if len(payload) > MAX_PAYLOAD:
        raise Unfit(f"a job may have at most {MAX_PAYLOAD} bytes, this one has {len(payload)}")
    _check_unknown([key for key in fields if key not in _RULES])
    job = examine(payload, stamp)
    if job is None:
        del payload
        raise Unfit(_why_doubtful(fields, b"".join(args), stamp))
    return job


def _made_jids() -> Iterator[bytes]:
    """Jids for jobs that have none; the system is asked for many at once, which costs as much as for one."""
    while True:
        noise = os.urandom(JID_BYTES * JIDS_AT_ONCE).hex().encode()
        yield from (noise[start : start + 2 * JID_BYTES] for start in range(0, len(noise), 2 * JID_BYTES))


_jids = _made_jids()


def _stamps(stamp: bytes) -> list[tuple[str, bytes]]:
    """What `examine` would append to a job without these fields, in its order."""
    return [("created_at", b',"created_at":"%b"' % stamp), ("retry", b',"retry":%d' % DEFAULT_RETRY)]


def _check_unknown(keys: Sequence[str]) -> None:
    """Fields that Faktory doesn't know (`priority`) are let through; what looks like a slip of the pen is not."""
    if len(keys) > MAX_UNKNOWN:
        raise Unfit(f"a job may have at most {MAX_UNKNOWN} fields that Faktory doesn't know, this one has {len(keys)}")
    for key in keys:
        meant = _meant(key[:REASON_TEXT])
        if meant is not None:
            raise Unfit(f"unknown field {_quoted(key)}: is {meant} meant?")


@lru_cache(maxsize=1024)
def _meant(key: str) -> str | None:
    """The known field that an unknown one is likely to be a slip of."""
    if folded(key) in _FIELDS:
        return folded(key)
    return next(iter(get_close_matches(key.lower(), _FIELDS, n=1, cutoff=0.8)), None)


def _why_doubtful(fields: Mapping[str, bytes], args: bytes, stamp: bytes) -> str:
    """The rule that a job broke: the first field that makes an otherwise empty job doubtful."""
    for key, rule in _RULES.items():
        value = fields.get(key, _NULL)
        if value != _NULL and not _certain(key, _one_line(value), stamp):
            return rule
    if examine(_PROBE_ARGS % args, stamp) is None:
        return f"args must be valid Unicode, at most {MAX_DEPTH} levels deep, its numbers within float64"
    return "the job as a whole is not certain to be accepted by Faktory: are all its texts valid Unicode?"


def _certain(key: str, value: bytes, stamp: bytes) -> bool:
    if key == "jid":
        return examine(b'{"jid":%b,"jobtype":"x","args":[]}' % value, stamp) is not None
    return examine(_PROBE % (msgspec.json.encode(key), value), stamp) is not None


def _own_jid(fields: Mapping[str, bytes]) -> str | None:
    """The id that a client gave its job, for the report on it."""
    value = fields.get("jid", _NULL)
    if value == _NULL:
        return None
    try:
        return _decode_text(value)[:REASON_TEXT]
    except _BAD_JSON:
        return None


def _one_line(value: bytes) -> bytes:
    """JSON without line breaks: in valid JSON they stand between tokens only."""
    if len(value) > LARGE:
        if _BREAK.search(value) is None:
            return value  # not even copied
        value = bytes(value)
    return value.replace(b"\r", b" ").replace(b"\n", b" ")


def _quoted(text: str) -> str:
    return msgspec.json.encode(text[:REASON_TEXT]).decode()
