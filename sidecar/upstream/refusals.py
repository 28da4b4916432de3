"""What an error text of Faktory means for the job, and for the link.

Final is only what Faktory itself says *about a job*: the texts of its validation and the codes of its middleware, from
the source of all versions from 0.9 to 1.10 (`server/commands.go`, `manager/`, `storage/redis.go`). Everything else is
the server's state, in whatever words its store or the system has for it. Old versions begin their texts with a capital,
so case doesn't matter; what a text repeats of a job stands behind the words that are looked for.
"""

from __future__ import annotations

import enum
import re


class Meaning(enum.Enum):
    """What to do after a refusal."""

    FINAL = "final"
    """The job will never be accepted as it is."""
    TRANSIENT = "transient"
    """Faktory's store is unwell, in words that are known; the same job can succeed later."""
    TIMED_OUT = "timed out"
    """Transient, and it was too much at once."""
    UNKNOWN = "unknown"
    """The server's state too, unless this job alone fails while others are accepted."""
    LINK = "link"
    """A state of the connection; says nothing about jobs, and nothing was applied."""
    UNSUPPORTED = "unsupported"
    """The server is too old for the command."""


_FINAL = re.compile(
    r"invalid json: |malformed |(all )?jobs must have an? [a-z ]+ parameter|jobs cannot be reserved for "
    r"|invalid timestamp for 'at': |(cannot get \"[^\"]*\" queue: )?queue names? (must match|cannot be blank)"
    r"|cannot marshal job payload: |notunique ",
    re.IGNORECASE,
)
_LINK = re.compile(r"(shutdown )?shutdown in progress|too many connections(: \d+)?|invalid password", re.IGNORECASE)
_UNSUPPORTED = re.compile("unknown command ", re.IGNORECASE)
_TIMED_OUT = re.compile(r"context deadline exceeded|i/o timeout", re.IGNORECASE)
_CUT_OFF = re.compile(
    r"\b(eof|broken pipe|connection reset by peer|use of closed network connection|context canceled)\b"
    r"|^internal error$|\bread (unix|tcp)\b",
    re.IGNORECASE,
)
"""The store was asked, and its answer is missing; a panic ends a `PUSHB` midway."""
_PASSING = re.compile(
    r"\b(dial|write|accept|lookup) (unix|tcp|udp)\b|\b(write|connect|socket): |\bredis: |\bmax number of clients\b"
    r"|\b(oom|loading|misconf|readonly|busy|masterdown|clusterdown|noreplicas|tryagain|noauth|noperm|wrongpass) ",
    re.IGNORECASE,
)
"""Words for a store in trouble. They need not be complete: what isn't here is `UNKNOWN`, and counts for little."""


def meaning(text: str) -> Meaning:
    """Classify an error text, given without its leading `ERR `."""
    if _FINAL.match(text):
        return Meaning.FINAL
    if _LINK.fullmatch(text):
        return Meaning.LINK
    if _UNSUPPORTED.match(text):
        return Meaning.UNSUPPORTED
    if _TIMED_OUT.search(text):
        return Meaning.TIMED_OUT
    if _PASSING.search(text) or (_CUT_OFF.search(text) and text.lower() != "internal error"):
        return Meaning.TRANSIENT
    return Meaning.UNKNOWN


def may_be_applied(text: str) -> bool:
    """Whether what was refused with this text can have been carried out, or a part of it."""
    return bool(_TIMED_OUT.search(text) or _CUT_OFF.search(text))


KNOWN_CODES = frozenset({"NOTUNIQUE"})
"""First words that Faktory itself sends in place of `ERR` (Enterprise's uniqueness)."""


def reply_line(text: str) -> bytes:
    """The reply that Faktory would give to a single `PUSH` that failed with this text of a `PUSHB`'s map."""
    text = text.replace("\r", " ").replace("\n", " ")
    code = text.split(" ", 1)[0]
    prefix = "-" if code in KNOWN_CODES else "-ERR "
    return f"{prefix}{text}\r\n".encode()


FIRST_WITH_PUSHB = (1, 6)


def knows_pushb(version: str) -> bool | None:
    """Whether a server of this version has `PUSHB`; None where the version doesn't tell."""
    number = re.match(r"(\d+)\.(\d+)", version)
    return (int(number[1]), int(number[2])) >= FIRST_WITH_PUSHB if number else None
