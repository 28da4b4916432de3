"""Which keys a job's object really has: a slow scanner, written from the grammar, to check the fast proofs against."""

from __future__ import annotations

import json

SPACE = b" \t\r\n"


def keys(payload: bytes) -> list[str]:
    """The keys of an object that is valid JSON, in order, with repetitions."""
    found = []
    at = _skip_space(payload, 0)
    assert payload[at : at + 1] == b"{"
    at = _skip_space(payload, at + 1)
    while payload[at : at + 1] != b"}":
        end = _string_end(payload, at)
        found.append(json.loads(payload[at:end]))
        at = _skip_space(payload, end)
        assert payload[at : at + 1] == b":"
        at = _value_end(payload, at + 1)
        if payload[at : at + 1] == b",":
            at = _skip_space(payload, at + 1)
    assert _skip_space(payload, at + 1) == len(payload)
    return found


def depth(payload: bytes) -> int:
    """How deep the brackets of valid JSON nest."""
    deepest = level = at = 0
    while at < len(payload):
        match payload[at : at + 1]:
            case b'"':
                at = _string_end(payload, at)
                continue
            case b"{" | b"[":
                level += 1
                deepest = max(deepest, level)
            case b"}" | b"]":
                level -= 1
        at += 1
    return deepest


def _skip_space(payload: bytes, at: int) -> int:
    while at < len(payload) and payload[at] in SPACE:
        at += 1
    return at


def _string_end(payload: bytes, at: int) -> int:
    assert payload[at : at + 1] == b'"'
    at += 1
    while payload[at : at + 1] != b'"':
        at += 2 if payload[at : at + 1] == b"\\" else 1
    return at + 1


def _value_end(payload: bytes, at: int) -> int:
    """Where the comma or the brace behind the value stands."""
    level = 0
    while level or payload[at : at + 1] not in (b",", b"}"):
        match payload[at : at + 1]:
            case b'"':
                at = _string_end(payload, at)
                continue
            case b"{" | b"[":
                level += 1
            case b"}" | b"]":
                level -= 1
        at += 1
    return at
