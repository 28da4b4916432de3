"""Jobs as Faktory decodes, completes and stores them (client/job.go of Faktory 1.10).

Faktory is written in Go, and Go's JSON decoder has its own ways: names match without regard to case, `null`
leaves a field as it was, bytes that aren't UTF-8 become U+FFFD, unknown names are ignored. Well-formed
jobs take the fast way through msgspec; whatever that refuses is decoded again, slowly, by Go's rules.

Two liberties: numbers in `args` and `custom` keep all their digits, where Go's float64 has about sixteen; and of two
`null`able fields of one name the last wins, also when it is `null` (two `custom` objects are merged, as in Go).
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)


class InvalidJson(ValueError):
    """What Go's decoder would refuse; the text follows `invalid JSON: ` in Faktory's reply."""


class Failure(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Why a job failed last, as it is kept with the job."""

    failed_at: str | None = None
    next_at: str | None = None
    message: str | None = None
    errtype: str | None = None
    backtrace: list[str] | None = None
    retry_count: _Int64 | None = None
    remaining: _Int64 | None = None


class WorkUnit(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A job as Faktory holds it; the fields stand in the order in which Faktory writes them."""

    retry: _Int64 | None = None
    failure: Failure | None = None
    custom: dict[str, Any] | None = None
    jid: str | None = None
    queue: str | None = None
    jobtype: str | None = None
    created_at: str | None = None
    enqueued_at: str | None = None
    at: str | None = None
    args: list[Any] | None = None
    reserve_for: _Int64 | None = None
    backtrace: _Int64 | None = None

    def complete(self, *, now: str, retry: int) -> None:
        """Fills in what the client may leave out, and drops what Faktory doesn't write (`omitempty`)."""
        self.created_at = self.created_at or now
        self.queue = self.queue or "default"
        if self.retry is None:
            self.retry = retry
        self.custom = self.custom or None
        self.at = self.at or None
        self.enqueued_at = self.enqueued_at or None
        self.reserve_for = self.reserve_for or None
        self.backtrace = self.backtrace or None
        if self.failure is not None:
            _complete_failure(self.failure)


def _complete_failure(failure: Failure) -> None:
    failure.failed_at = failure.failed_at or ""
    failure.next_at = failure.next_at or None
    failure.message = failure.message or None
    failure.errtype = failure.errtype or None
    failure.backtrace = failure.backtrace or None
    failure.retry_count = failure.retry_count or 0
    failure.remaining = failure.remaining or 0


_decode_one = msgspec.json.Decoder(WorkUnit).decode
_decode_many = msgspec.json.Decoder(list[WorkUnit]).decode
_encode = msgspec.json.Encoder().encode


def decode_one(data: bytes) -> WorkUnit:
    """The argument of a `PUSH`; raises `InvalidJson`."""
    try:
        job = _decode_one(data)
        return job if data.count(b'"custom"') < 2 else _from_go(decode_like_go(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _from_go(decode_like_go(data))


def decode_many(data: bytes) -> list[WorkUnit]:
    """The argument of a `PUSHB`; one wrong element is a wrong argument, as in Faktory. Raises `InvalidJson`."""
    try:
        jobs = _decode_many(data)
        if data.count(b'"custom"') <= len(jobs):
            return jobs
        values = decode_like_go(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        values = decode_like_go(data)
    if values is None:
        return []
    if not isinstance(values, list):
        raise InvalidJson(f"json: cannot unmarshal {_kind(values)} into Go value of type []client.Job")
    return [_from_go(value) for value in values]


def encode(value: object) -> bytes:
    """JSON as Go writes it: compact, with `<`, `>` and `&` escaped."""
    data = _encode(value)
    for character, escape in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        if character in data:
            data = data.replace(character, escape)
    return data


class _Object(dict[str, Any]):
    """A JSON object that remembers every pair, also those whose name comes twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def decode_like_go(data: bytes) -> Any:
    """Decodes JSON by the rules of Go's `encoding/json`; raises `InvalidJson`."""
    try:
        return json.loads(
            _mended(data.decode("utf-8", "replace")),
            object_pairs_hook=_Object,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise InvalidJson("exceeded max depth") from None
    except ValueError as error:
        if not data.strip(b" \t\r\n"):
            raise InvalidJson("unexpected end of JSON input") from None
        raise InvalidJson(str(error)) from None


def _mended(text: str) -> str:
    """Replaces escaped lone surrogates by U+FFFD, as Go does."""
    if "\\u" not in text:
        return text
    pair = r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    lone = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
    return re.sub(rf"(\\[^u])|{pair}|{lone}", lambda found: found[1] or found[2] or r"\ufffd", text)


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise ValueError(f"json: cannot unmarshal number {literal} into Go value of type float64")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"invalid character {name[0]!r} looking for beginning of value")


def _kind(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case dict():
            return "object"
        case list():
            return "array"
        case str():
            return "string"
        case _:
            return "number"


def _from_go(value: object) -> WorkUnit:
    if value is None:
        return WorkUnit()
    if not isinstance(value, _Object):
        raise InvalidJson(f"json: cannot unmarshal {_kind(value)} into Go value of type client.Job")
    fields = _known(value, WorkUnit.__struct_fields__)
    if isinstance(fields.get("failure"), _Object):
        fields["failure"] = _known(fields["failure"], Failure.__struct_fields__)
    try:
        return msgspec.convert(fields, WorkUnit)
    except msgspec.ValidationError as error:
        raise InvalidJson(f"json: {error}") from None


def _known(value: _Object, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields that Faktory knows: a later one wins, except that `null` changes nothing and objects merge."""
    fields: dict[str, Any] = {}
    pointers = ("retry", "failure", "custom", "args")
    for key, item in value.pairs:
        name = key if key in names else key.casefold()
        if name not in names or (item is None and name not in pointers):
            continue
        earlier = fields.get(name)
        if isinstance(earlier, _Object) and isinstance(item, _Object):
            item = _Object(earlier.pairs + item.pairs)
        fields[name] = item
    return fields


def timestamp(seconds: float) -> str:
    """Unix time in seconds as Faktory writes it: RFC 3339, UTC, without trailing zeros."""
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return text + "Z"


def parse_timestamp(text: str) -> float:
    """RFC 3339 to Unix time in seconds; raises `ValueError`."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"parsing time {quoted(text)}: not an RFC 3339 time")
    fraction = float(f"0.{found[2]}") if found[2] else 0.0
    try:
        whole = datetime.fromisoformat(found[1] + found[3])
    except ValueError as error:
        raise ValueError(f"parsing time {quoted(text)}: {error}") from None
    return whole.timestamp() + fraction


def quoted(text: str) -> str:
    """Text in double quotes, as Go's `%q` shows it (for the characters that occur in names)."""
    return json.dumps(text, ensure_ascii=False)
