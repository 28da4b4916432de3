"""MUTATE: repairs on the embedded Faktory's scheduled, retried and dead jobs (server/mutate.go of Faktory)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

import msgspec

from sidecar.demo.store import DEAD_TTL, Refused, Store
from sidecar.demo.workunits import quoted


class _Filter(msgspec.Struct):
    regexp: str | None = None
    jobtype: str | None = None
    jids: list[str] | None = None


class _Operation(msgspec.Struct):
    cmd: str | None = None
    target: str | None = None
    filter: _Filter | None = None


_operation = msgspec.json.Decoder(_Operation).decode


def mutate(store: Store, argument: bytes) -> None:
    """Applies one MUTATE.

    Raises:
        Refused: with the words of Faktory, except for broken JSON.
    """
    if not argument or b" " in argument:
        raise Refused("invalid format")
    try:
        operation = _operation(argument)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused(f"invalid MUTATE: {error}") from None
    if operation.cmd not in ("clear", "kill", "discard", "requeue"):
        raise Refused("unknown mutate operation")
    entries = store.sets.get(operation.target or "")
    if entries is None:
        raise Refused("invalid target for mutation command")
    wanted = _matcher(None if operation.cmd == "clear" else operation.filter)
    chosen = [payload for payload in entries if wanted(payload.decode())]
    for payload in chosen:
        del entries[payload]
    if operation.cmd == "kill":
        store.sets["dead"].update(dict.fromkeys(chosen, store.now() + DEAD_TTL))
    elif operation.cmd == "requeue":
        store.requeue(chosen)


def _matcher(wanted: _Filter | None) -> Callable[[str], bool]:
    """A filter as a function of a stored job: by jids, else by pattern and type."""
    if wanted is None:
        return lambda _: True
    if wanted.jids:
        marks = [f'"jid":{quoted(jid)}' for jid in wanted.jids]
        return lambda payload: any(mark in payload for mark in marks)
    pattern = re.compile(fnmatch.translate(wanted.regexp or "*"))
    mark = f'"jobtype":{quoted(wanted.jobtype)}' if wanted.jobtype else ""
    return lambda payload: mark in payload and pattern.match(payload) is not None
