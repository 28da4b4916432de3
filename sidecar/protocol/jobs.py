"""Which jobs Faktory is certain to accept, and the stamps they leave with.

`examine` answers one question: will a Faktory server (1.10.0 and alike) store this job, and store the same job
whether it comes by `PUSH` or inside a `PUSHB`? Only a sure yes gives a `Job`. A wrong "no" costs a round trip, a
wrong "yes" would be an acknowledgement that upstream takes back, so every rule errs towards no. The rules follow
Faktory's `client.Job`, its `manager.Push` and Go's `encoding/json`:

- Go compares keys without regard to case (see `names`) and lets repeated keys merge into one value, so no key may
  repeat and none may be another spelling of a known one. Keys that Faktory doesn't know are skipped by it.
- Integer fields take literals without fraction and exponent within int64; `null` leaves any field at its zero.
- Numbers within `args` and `custom` become float64 and must not overflow it.
- Go's decoder gives up at a depth of 10,000; the bound here is far below, and below Python's recursion limit.

msgspec's decoder is as strict as Go's or stricter (bad UTF-8 and lone surrogates, which Go replaces), with two
exceptions: integers too long for float64, which `_may_overflow` looks for, and what it skips without a look, the
values of unknown keys, as Go does.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from sidecar.protocol.large import LARGE, MAX_ELEMENTS, has_many_elements, reduced
from sidecar.protocol.names import folded

MIN_JID: Final = 8  # bytes; characters are counted here, which are never more
MAX_QUEUE: Final = 200  # characters; Faktory has no bound, but names are cached here
MAX_RESERVE_FOR: Final = 86_400  # seconds
MAX_DEPTH: Final = 100  # of arrays and objects, the job's own braces included
DEFAULT_RETRY: Final = 25  # documented in the protocol; a server's own default can be changed by its clients

_KNOWN = frozenset(
    {
        *("jid", "jobtype", "args", "queue", "reserve_for", "at", "retry", "backtrace"),
        *("created_at", "enqueued_at", "custom", "failure"),
    }
)
_QUEUE = re.compile(r"[a-zA-Z0-9._-]+")
_LONGEST_KNOWN = max(map(len, _KNOWN))
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# +1 for what opens, -1 (as a signed byte) for what closes; everything else is deleted.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# Float64 holds every integer of 308 digits. A run of 309 covers four neighbours among every 64th byte.
_LONG_INTEGER = re.compile(rb"(?<![0-9])[0-9]{309}")
_LONG_INTEGER_SAMPLED = re.compile(rb"[0-9]{4}")
_RETRY_STAMP = b',"retry":%d' % DEFAULT_RETRY

# A job of no more bytes has room neither for 101 pairs of brackets nor for an integer of 309 digits.
_SHORT = 200
_NEWLINE, _RETURN, _TAB, _BACKSLASH, _CLOSING_BRACE = b"\n\r\t\\}"
_BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Fields(msgspec.Struct, gc=False):
    """The fields of Faktory's job with the types that its decoder takes; other keys are skipped, as it does."""

    jid: Annotated[str, msgspec.Meta(min_length=MIN_JID)]
    jobtype: Annotated[str, msgspec.Meta(min_length=1)]
    args: list[Any]
    queue: Annotated[str, msgspec.Meta(max_length=MAX_QUEUE)] | UnsetType | None = UNSET
    reserve_for: Annotated[int, msgspec.Meta(ge=-(2**63), le=MAX_RESERVE_FOR)] | UnsetType | None = UNSET
    at: str | UnsetType | None = UNSET
    retry: _Int64 | UnsetType | None = UNSET
    backtrace: _Int64 | UnsetType | None = UNSET
    created_at: str | UnsetType | None = UNSET
    enqueued_at: str | UnsetType | None = UNSET
    custom: dict[str, Any] | UnsetType | None = UNSET
    failure: UnsetType | None = UNSET


_decode = msgspec.json.Decoder(_Fields).decode
_encode = msgspec.json.Encoder().encode
_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Job(msgspec.Struct, frozen=True, gc=False):
    """A job that Faktory is certain to accept.

    Args:
        jid: the job's id as decoded, the key of its outcome in the reply to a `PUSHB`.
        payload: its JSON object on one line, stamped, as it goes upstream.
        confirmed: only upstream can tell whether it is taken (a unique job, a job of a batch of Faktory Enterprise).
    """

    jid: str
    payload: bytes
    confirmed: bool = False


def stamp(now: float) -> bytes:
    """The moment `now` (Unix seconds) as `created_at` has it: RFC 3339 in UTC with microseconds."""
    whole = int(now)
    return b"%b.%06dZ" % (_second(whole), min(int((now - whole) * 1e6), 999_999))


@lru_cache(maxsize=2)
def _second(whole: int) -> bytes:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def examine(payload: bytes, stamp: bytes, *, light: bool = False) -> Job | None:
    """The job, stamped, when Faktory is certain to accept it; None when that is in doubt.

    `created_at` is appended where it is absent, null or empty, `retry` where it is absent or null, as the last keys; no
    other byte changes. Go lets the last of a repeated key win, so the stamp replaces the empty value.

    Args:
        payload: what follows `PUSH `.
        stamp: the `created_at` for a job that has none, see `stamp`.
        light: it is known to cost little, however long it is.
    """
    if _NEWLINE in payload:
        return None  # it would end the line upstream
    if len(payload) > _SHORT:
        if len(payload) > LARGE and not light:
            return _examine_large(payload, stamp)
        if _depth(payload) > MAX_DEPTH or _may_overflow(payload):
            return None
    try:
        fields = _decode(payload)
    except _BAD_JSON:
        return None
    known = 3  # how many of the known keys are there: the decoder demands jid, jobtype and args
    if (queue := fields.queue) is not UNSET:
        known += 1
        if queue and not _is_queue_name(queue):
            return None
    if (at := fields.at) is not UNSET:
        known += 1
        if at and not _is_timestamp(at):
            return None
    if (custom := fields.custom) is not UNSET:
        known += 1
    if (retry := fields.retry) is not UNSET:
        known += 1
    if (created_at := fields.created_at) is not UNSET:
        known += 1
    for field in (fields.reserve_for, fields.backtrace, fields.enqueued_at, fields.failure):
        if field is not UNSET:
            known += 1
    # One colon for each known key and no other: no unknown key and none twice; see `_keys_are_plain`.
    if payload.count(b":") != known and not _keys_are_plain(payload, known, fields):
        return None
    wanting = b""
    if created_at is UNSET or not created_at:
        wanting = b',"created_at":"%b"' % stamp
    if retry is UNSET or retry is None:
        wanting += _RETRY_STAMP
    if wanting:
        payload = _append(payload, wanting)
    if custom is UNSET or not custom:
        return Job(fields.jid, payload)
    return Job(fields.jid, payload, "unique_for" in custom or "bid" in custom)


def _examine_large(payload: bytes, stamp: bytes) -> Job | None:
    """As `examine`, without building what is long in it. What would cost too much is in doubt: Faktory may judge it."""
    short = reduced(payload)
    job = examine(short, stamp, light=True) if short is not None else None
    if short is None or job is None:
        return None
    end = short.rindex(b"}")
    stamps = job.payload[end : len(job.payload) - len(short) + end]
    return Job(job.jid, _append(payload, stamps) if stamps else payload, job.confirmed)


def examine_array(array: bytes, stamp: bytes) -> list[Job] | None:
    """The jobs of a `PUSHB`, in order; None when it is no array or any of its elements is in doubt.

    Args:
        array: what follows `PUSHB `.
        stamp: as for `examine`, the same for all, as Faktory does it.
    """
    if len(array) > LARGE and has_many_elements(array):
        return None
    try:
        elements = _decode_array(array)
    except _BAD_JSON:
        return None
    if len(elements) > MAX_ELEMENTS:
        return None
    jobs = []
    for element in elements:
        job = examine(bytes(element), stamp)
        if job is None:
            return None
        jobs.append(job)
    return jobs


@lru_cache(maxsize=1024)
def _is_queue_name(name: str) -> bool:
    return _QUEUE.fullmatch(name) is not None


def _is_timestamp(text: str) -> bool:
    """Whether `text` is strict RFC 3339, its day in the calendar (years 1 to 9999, no leap second)."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        return False
    year, month, day = found.groups()
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _depth(payload: bytes) -> int:
    """How deep arrays and objects nest in valid JSON, or a bound for it that is fine."""
    most = payload.count(b"[") + payload.count(b"{")
    if most <= MAX_DEPTH:
        return most
    brackets = _STRING.sub(b"", payload).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(brackets).cast("b")), default=0)


def _may_overflow(payload: bytes) -> bool:
    """Whether an integer may be too long for float64 (fractions and exponents are checked by the decoder)."""
    if _LONG_INTEGER_SAMPLED.search(payload[::64]) is None:
        return False
    return _LONG_INTEGER.search(payload) is not None


def _keys_are_plain(payload: bytes, known: int, fields: _Fields) -> bool:
    """Whether no key of the payload's object repeats, and none is another spelling of a known one.

    Call the object's members M, counted with repetitions. M is at least `known`, the number of different known keys
    in it; when M is just that, nothing repeats and there is no other key. In the same way M is at least the number of
    different keys of any kind, and when it is just that, nothing repeats. So any count that is sure to be M or more,
    and turns out to be that small, is a proof:

    1. Every member has a colon, so all colons of the payload are such a count. (Colons in strings make it too high.)
    2. Where no white space stands before a colon, every member has a quote followed by a colon. Raw tabs and carriage
       returns are never part of a string, so their absence and that of space-colon are enough. (Strings that hold
       quote-colon, and the members of inner objects, make it too high.)
    3. The same less what lies within the values that a decoder kept. A member that was replaced by a later one still
       counts one for itself, and what lies in it is not taken off: the difference stays M or more. Without a backslash
       no string has a quote in it, so the decoded values, written anew, show their members and nothing else.

    When none gives the answer, a decoder that tells every member does.

    Args:
        payload: valid but for unknown keys and their values, which must be UTF-8 to pass; not deep.
        known: how many of the known keys, exactly spelled, it has.
        fields: its known fields.
    """
    tight = payload.find(b" :") < 0 and _TAB not in payload and _RETURN not in payload
    found = payload.count(b'":') if tight else -1
    if found == known:
        return True
    if tight and _BACKSLASH not in payload and found - _members(fields) == known:
        return True
    if not _is_utf8(payload):
        return False
    values = _decode_keys(payload)
    keys = len(values)
    if keys > known and not _are_foreign(values.keys() - _KNOWN):
        return False
    if found == keys:
        return True
    if tight and found - sum([bytes(values[key]).count(b'":') for key in ("args", "custom") if key in values]) == keys:
        return True
    members: object = json.loads(payload, object_pairs_hook=len, parse_int=len, parse_float=len)
    return members == keys


def _members(fields: _Fields) -> int:
    """Members of all objects within the values of fields that have no quotes in their strings."""
    return _encode((fields.args, None if fields.custom is UNSET else fields.custom)).count(b'":')


def _are_foreign(keys: set[str]) -> bool:
    """Whether Faktory takes none of these keys for one that it knows."""
    return not any(len(key) <= _LONGEST_KNOWN and folded(key) in _KNOWN for key in keys)


def _is_utf8(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _append(payload: bytes, members: bytes) -> bytes:
    """The payload with `members`, a comma before each, as the last of its object, which is not empty."""
    if payload[-1] == _CLOSING_BRACE:
        if len(payload) > LARGE:
            return b"".join((memoryview(payload)[:-1], members, b"}"))  # copied once
        return b"%b%b}" % (payload[:-1], members)
    end = payload.rindex(b"}")
    return b"%b%b%b" % (payload[:end], members, payload[end:])
