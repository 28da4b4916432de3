"""What an error text of Faktory means for the job, and for the link.

Sources: Faktory 1.10.0 `server/` and `manager/` for its own texts; Redis for those that it hands through.
"""

from __future__ import annotations

import enum
import re


class Meaning(enum.Enum):
    """What to do after a refusal."""

    FINAL = "final"
    """The job will never be accepted as it is."""
    TRANSIENT = "transient"
    """Faktory or its Redis is unwell; the same job can succeed later. The whole link backs off."""
    TIMED_OUT = "timed out"
    """Transient, and it may have been applied all the same: in doubt."""
    UNKNOWN = "unknown"
    """Nothing known: tried a few times."""
    LINK = "link"
    """A state of the connection; says nothing about jobs, and nothing was applied."""
    UNSUPPORTED = "unsupported"
    """The server is too old for the command."""


_LINK = ("shutdown in progress", "too many connections", "Invalid password")
_TIMED_OUT = ("context deadline exceeded", "i/o timeout")
_TRANSIENT = ("EOF", "connection re", "redis: ")
_REDIS_STATE = re.compile(
    r"(?:.*: )?(?:OOM|LOADING|MISCONF|READONLY|BUSY|MASTERDOWN|CLUSTERDOWN|NOREPLICAS|TRYAGAIN|NOAUTH|NOPERM)\b"
)
_FINAL = re.compile(
    r"invalid JSON: |jobs must have |jobs cannot be |invalid timestamp for |(?:.*: )?queue names? |[A-Z]{3,}[A-Z0-9_]* "
)


def meaning(text: str) -> Meaning:
    """Classify an error text, given without its leading `ERR `.

    A text that names a state of Redis after any `…: ` prefix is transient whatever stands before it:
    `cannot get "q" queue: …` can be either kind.
    """
    if any(part in text for part in _LINK):
        return Meaning.LINK
    if text.startswith("unknown command"):
        return Meaning.UNSUPPORTED
    if any(part in text for part in _TIMED_OUT):
        return Meaning.TIMED_OUT
    if any(part in text for part in _TRANSIENT) or _REDIS_STATE.match(text):
        return Meaning.TRANSIENT
    if _FINAL.match(text):
        return Meaning.FINAL
    return Meaning.UNKNOWN


KNOWN_CODES = frozenset({"NOTUNIQUE"})
"""First words that Faktory itself sends in place of `ERR` (Enterprise's uniqueness)."""


def reply_line(text: str) -> bytes:
    """The reply that Faktory would give to a single `PUSH` that failed with this text of a `PUSHB`'s map."""
    text = text.replace("\r", " ").replace("\n", " ")
    code = text.split(" ", 1)[0]
    prefix = "-" if code in KNOWN_CODES else "-ERR "
    return f"{prefix}{text}\r\n".encode()
