"""The commands that carry jobs upstream, in pieces where they are large: then nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

JOINED: Final = 1024 * 1024
"""Bytes of jobs that are copied into one command; above it the command is their list."""


def push(payload: bytes) -> bytes | list[bytes]:
    """A `PUSH` of this job with its line end, whole or in pieces."""
    if len(payload) <= JOINED:
        return b"PUSH " + payload + b"\r\n"
    return [b"PUSH ", payload, b"\r\n"]


def pushb(payloads: Sequence[bytes]) -> bytes | list[bytes]:
    """A `PUSHB` of these jobs with its line end, whole or in pieces."""
    if sum(map(len, payloads)) <= JOINED:
        return b"PUSHB [" + b",".join(payloads) + b"]\r\n"
    pieces = [piece for payload in payloads for piece in (b",", payload)]
    pieces[0] = b"PUSHB ["
    return [*pieces, b"]\r\n"]
