"""What upstream's reply to a command with jobs says of each of them."""

from __future__ import annotations

import msgspec

from sidecar.protocol.replies import OK, ProtocolError, bulk_body, error_text

ALL_ACCEPTED = b"$2\r\n{}\r\n"

_decode_map = msgspec.json.Decoder(dict[str, str])


class Unreadable(Exception):
    """A reply that no Faktory gives to this command."""


def refused_as_a_whole(reply: bytes) -> str | None:
    """The error text of a command that was refused, without its leading `ERR `; None when it was carried out."""
    text = error_text(reply)
    return text.removeprefix("ERR ") if text is not None else None


def refused_jobs(reply: bytes) -> dict[str, str]:
    """The refused jobs of a `PUSHB` that was carried out, by jid: error texts as the server has them.

    Raises:
        Unreadable: it is no map.
    """
    if reply == ALL_ACCEPTED:
        return {}
    try:
        return _decode_map.decode(bulk_body(reply) or b"")
    except (msgspec.DecodeError, ProtocolError) as error:
        raise Unreadable(f"not a reply to PUSHB: {reply[:200]!r}") from error


def check_single(reply: bytes) -> None:
    """Make sure that a reply to `PUSH` that is no error is the one that Faktory gives.

    Raises:
        Unreadable: it is not.
    """
    if reply != OK:
        raise Unreadable(f"not a reply to PUSH: {reply[:200]!r}")
