"""The embedded Faktory's command table: one function a command, text in, reply out (server/commands.go of Faktory)."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import trio

from sidecar.demo.mutate import mutate
from sidecar.demo.store import Refused, Store
from sidecar.demo.workunits import InvalidJson, decode_many, decode_one, encode, timestamp
from sidecar.protocol.replies import NIL, OK, bulk

VERSION = "1.10.0+embedded"
DESCRIPTION = "embedded Faktory (in memory)"
_STATES = ("", "quiet", "terminate")  # a worker only ever moves to the right


@dataclass(slots=True, eq=False)
class Worker:
    """What one HELLO said. Only the first connection of a `wid` is told a state by BEAT; that is Faktory's way."""

    wid: str = ""
    state: str = ""
    heard: float = 0.0  # trio time of the last BEAT
    streams: list[trio.abc.Stream] = field(default_factory=list)

    def move(self, state: str) -> None:
        """Changes the state, never backwards; an unknown one is ignored."""
        if state in _STATES and _STATES.index(state) > _STATES.index(self.state):
            self.state = state


@dataclass(slots=True, eq=False)
class ServerState:
    """What the commands of all connections share."""

    store: Store
    version: str = VERSION
    workers: dict[str, Worker] = field(default_factory=dict)
    connections: int = 0
    commands: int = 0
    started: float = 0.0  # trio time


class _Failing(msgspec.Struct):
    jid: str | None = None
    message: str | None = None
    errtype: str | None = None
    backtrace: list[str] | None = None


class _Beating(msgspec.Struct):
    wid: str | None = None
    current_state: str | None = None
    rss_kb: int | None = None


_failing = msgspec.json.Decoder(_Failing).decode
_beating = msgspec.json.Decoder(_Beating).decode
_acking = msgspec.json.Decoder(dict[str, str | None]).decode


def error(text: str) -> bytes:
    """An error reply with Faktory's usual code."""
    return b"-ERR " + text.encode() + b"\r\n"


def answer(state: ServerState, line: bytes) -> bytes:
    """Obeys one command other than END and FETCH, which are the connection's own, and returns its reply."""
    name, space, argument = line.partition(b" ")
    verb = name.decode("utf-8", "replace")
    command = _COMMANDS.get(verb)
    if command is None:
        return error(f"unknown command {verb}")
    state.commands += 1
    if not space and verb in _NEED_ARGUMENT:
        return error("internal error")  # Faktory's own code panics here, and says so
    try:
        return command(state, argument)
    except Refused as refusal:
        return error(str(refusal))
    except InvalidJson as refusal:
        return error(f"invalid JSON: {refusal}")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return error(f"invalid {line.decode('utf-8', 'replace')}")


async def fetch(state: ServerState, worker: Worker, line: bytes) -> bytes:
    """Obeys a FETCH: a job, or nil after 2 s; nil for a worker that was told to be quiet."""
    state.commands += 1
    if worker.state:
        await trio.sleep(2)
        return NIL
    try:
        job = await state.store.fetch(line.decode("utf-8", "replace").split(" ")[1:], worker.wid)
    except Refused as refusal:
        return error(str(refusal))
    return NIL if job is None else bulk(encode(job))


def _push(state: ServerState, argument: bytes) -> bytes:
    job = decode_one(argument)
    if job.retry is not None:
        state.store.default_retry = job.retry  # as on the real server, where this is a mistake
    state.store.push(job)
    return OK


def _push_bulk(state: ServerState, argument: bytes) -> bytes:
    refused: dict[str, str] = {}
    stamp = timestamp(state.store.now())
    for job in decode_many(argument):
        try:
            state.store.push(job, stamp=stamp)
        except Refused as refusal:
            refused[job.jid or ""] = str(refusal)
    return bulk(encode(dict(sorted(refused.items()))))


def _ack(state: ServerState, argument: bytes) -> bytes:
    fields = _acking(argument)
    if "jid" not in fields:
        raise msgspec.ValidationError("no jid")
    state.store.acknowledge(fields["jid"] or "")
    return OK


def _fail(state: ServerState, argument: bytes) -> bytes:
    failing = _failing(argument)
    if not failing.jid:
        raise Refused("missing JID")
    state.store.fail(
        failing.jid,
        message=failing.message or "",
        errtype=failing.errtype or "",
        backtrace=failing.backtrace or [],
    )
    return OK


def _beat(state: ServerState, argument: bytes) -> bytes:
    beating = _beating(argument)
    worker = state.workers.get(beating.wid or "")
    if worker is None:
        raise Refused(f"unknown worker {beating.wid or ''}")
    worker.heard = trio.current_time()
    worker.move(beating.current_state or "")
    return bulk(encode({"state": worker.state})) if worker.state else OK


def _flush(state: ServerState, _: bytes) -> bytes:
    state.store.flush()
    return OK


def _queue(state: ServerState, argument: bytes) -> bytes:
    store = state.store
    subcommand, *names = argument.decode("utf-8", "replace").split(" ")
    verb = subcommand.upper()
    if verb == "LATENCY":
        if names == ["*"]:
            raise Refused("QUEUE LATENCY does not support wildcards")
        return bulk(encode({name: store.latency(name) for name in sorted(names)}))
    actions = {"PAUSE": store.pause, "RESUME": store.resume, "REMOVE": store.remove}
    if verb not in actions:
        raise Refused(f"no such QUEUE subcommand: {verb}")
    if not names:
        raise Refused("internal error")
    for name in list(store.queues) if names[0] == "*" else names:
        actions[verb](name)
    return OK


def _mutate(state: ServerState, argument: bytes) -> bytes:
    mutate(state.store, argument)
    return OK


def _enterprise(subsystem: str) -> Callable[[ServerState, bytes], bytes]:
    def refuse(state: ServerState, argument: bytes) -> bytes:
        del state, argument
        raise Refused(f"{subsystem} subsystem is only available in Faktory Enterprise")

    return refuse


def _info(state: ServerState, _: bytes) -> bytes:
    store = state.store
    now = store.now()
    queues = {name: len(queue) for name, queue in sorted(store.queues.items())}
    sets = {name: len(entries) for name, entries in sorted(store.sets.items())}
    sets["working"] = sum(held.listed for held in store.working.values())
    faktory = {
        "queues": queues,
        "sets": sets,
        "tasks": {"Busy": {"size": len(store.working)}, "Workers": {"size": len(state.workers)}},
        "total_failures": store.failures,
        "total_processed": store.processed,
        "total_enqueued": sum(queues.values()),
        "total_queues": len(queues),
    }
    server = {
        "description": DESCRIPTION,
        "faktory_version": state.version,
        "uptime": int(trio.current_time() - state.started),
        "connections": state.connections,
        "command_count": state.commands,
        "used_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    clock = time.strftime("%H:%M:%S UTC", time.gmtime(now))
    return bulk(encode({"now": timestamp(now), "server_utc_time": clock, "faktory": faktory, "server": server}))


_COMMANDS: dict[str, Callable[[ServerState, bytes], bytes]] = {
    "PUSH": _push,
    "PUSHB": _push_bulk,
    "ACK": _ack,
    "FAIL": _fail,
    "BEAT": _beat,
    "INFO": _info,
    "FLUSH": _flush,
    "MUTATE": _mutate,
    "QUEUE": _queue,
    "BATCH": _enterprise("batch"),
    "TRACK": _enterprise("tracking"),
}
_NEED_ARGUMENT = frozenset({"PUSH", "PUSHB", "ACK", "FAIL", "BEAT", "QUEUE"})
