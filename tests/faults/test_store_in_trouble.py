"""A real Faktory whose store is in trouble: nothing that was acknowledged dies of it, or is lost."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import FaktoryFactory, SidecarFactory
from tests.ops.asking import metrics
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient
from tests.real.sidecar_command import SidecarProcess

TROUBLE = 5.0
"""Seconds: five tries in a row take some 3 s, with a Faktory that answers each at once."""
JOBS = 1_000
ODD = "WRONGTYPE Operation against a key holding the wrong kind of value"


def job(jid: str, queue: str = "plain") -> str:
    return json.dumps({"jid": jid, "jobtype": "t", "args": [1], "queue": queue})


def push_all(client: RawClient, jids: list[str]) -> None:
    for jid in jids:
        client.send(f"PUSH {job(jid)}")
    assert {client.reply() for _ in jids} == {"OK"}


def socket_of(faktory: RealFaktory) -> Path:
    return faktory.directory / "redis.sock"


def cut_off(faktory: RealFaktory) -> None:
    faktory.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@contextmanager
def socket_gone(faktory: RealFaktory) -> Iterator[None]:
    """`dial unix …: connect: no such file or directory`"""
    path = socket_of(faktory)
    cut_off(faktory)
    path.rename(path.with_suffix(".away"))
    yield
    path.with_suffix(".away").rename(path)


@contextmanager
def full_backlog(faktory: RealFaktory) -> Iterator[None]:
    """`dial unix …: connect: resource temporarily unavailable`"""
    cut_off(faktory)
    faktory.stall_redis()
    held: list[socket.socket] = []
    try:
        for _ in itertools.count():
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].setblocking(False)
            held[-1].connect(os.fspath(socket_of(faktory)))
    except BlockingIOError:
        pass
    yield
    faktory.resume_redis()
    for each in held:
        each.close()


@contextmanager
def no_memory(faktory: RealFaktory) -> Iterator[None]:
    """`OOM command not allowed …`"""
    faktory.redis("CONFIG", "SET", "maxmemory", "1")
    yield
    faktory.redis("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def no_clients(faktory: RealFaktory) -> Iterator[None]:
    """`write: broken pipe`, `ERR max number of clients reached`"""
    faktory.redis("CONFIG", "SET", "maxclients", "20")
    held = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for each in held:
        each.connect(os.fspath(socket_of(faktory)))
    cut_off_by_limit(faktory)
    yield
    for each in held:
        each.close()
    wait_for(lambda: _tried(faktory), what="Redis has room again")


def cut_off_by_limit(faktory: RealFaktory) -> None:
    """Redis keeps its old clients, so that the limit is felt by Faktory when these go."""
    with suppress(OSError, AssertionError):  # we are above the limit, too
        cut_off(faktory)


def _tried(faktory: RealFaktory) -> bool:
    try:
        return faktory.redis("CONFIG", "SET", "maxclients", "10000") == "OK"
    except (OSError, AssertionError, IndexError):
        return False


Trouble = Callable[[RealFaktory], AbstractContextManager[None]]


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_a_store_that_is_said_to_be_in_trouble_again_and_again_kills_no_job(
    mode: str, quick_part: str, faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory
) -> None:
    nothing_dies(mode, full_backlog, faktory_factory(part=quick_part), "plain", sidecar_process)


@pytest.mark.parametrize(
    ("mode", "trouble"),
    [("disk", socket_gone), ("memory", full_backlog), ("disk", no_memory), ("memory", no_clients)],
)
def test_a_store_in_trouble_says_nothing_about_jobs(
    mode: str, trouble: Trouble, faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory
) -> None:
    nothing_dies(mode, trouble, faktory_factory(), "q:plain", sidecar_process)


def nothing_dies(mode: str, trouble: Trouble, faktory: RealFaktory, key: str, sidecar_process: SidecarFactory) -> None:
    """Jobs are acknowledged while the store is in trouble: none dies of it, and all arrive when it is over."""
    sidecar = sidecar_process(faktory.url, {"SIDECAR_ACK": mode})
    with RawClient(sidecar.port) as client:
        push_all(client, ["before-the-trouble"])
        wait_for(lambda: delivered(sidecar) == 1, what="the link works")
        with trouble(faktory):
            push_all(client, [f"in-trouble-{i}" for i in range(JOBS)])
            end = time.monotonic() + TROUBLE
            wait_for(lambda: time.monotonic() > end, what="the trouble lasts", timeout=2 * TROUBLE)
            assert metric(sidecar, 'jobs_rejected_total{fate="dead_letter"}') == 0
        wait_for(lambda: delivered(sidecar) == JOBS + 1, what="all are delivered", timeout=30)
        assert metric(sidecar, 'jobs_rejected_total{fate="dead_letter"}') == 0
    assert stored_in(faktory, key) == {"before-the-trouble", *(f"in-trouble-{i}" for i in range(JOBS))}


def test_a_job_refused_alone_is_shown_and_holds_nobody_up_and_survives_a_restart(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, tmp_path: Path
) -> None:
    faktory = faktory_factory()
    faktory.redis("SET", "q:broken", "not a list")  # INFO fails too, with the same words
    settings = {"SIDECAR_ACK": "disk", "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal")}
    sidecar = sidecar_process(faktory.url, settings)
    wid = {"wid": "worker-1"}
    with RawClient(sidecar.port, hello=wid) as worker, RawClient(sidecar.port) as producer:
        producer.send(f"PUSH {job('a-good-job')}")
        assert producer.reply() == "OK"
        worker.send("FETCH plain")
        assert json.loads(worker.reply() or "")["jid"] == "a-good-job"
        worker.send(f"PUSH {job('odd-child', queue='broken')}")
        assert worker.reply() == "OK"
        before = time.monotonic()
        worker.send('ACK {"jid":"a-good-job"}')
        assert worker.reply() == "OK"
        assert time.monotonic() - before < 3.5
        wait_for(lambda: metric(sidecar, "jobs_apart") == 1, what="it waits apart")
        assert metric(sidecar, 'condition{condition="apart"}') == 1
        assert ODD in sidecar.log_text()
        for i in range(20):
            producer.send(f"PUSH {job(f'later-job-{i}')}")
            assert producer.reply() == "OK"
        wait_for(lambda: delivered(sidecar) == 21, what="the link goes on")
    sidecar.terminate()
    assert sidecar.wait() == 0
    again = sidecar_process(faktory.url, settings)
    wait_for(lambda: metric(again, "jobs_apart") == 1, what="it waits apart again")
    faktory.redis("DEL", "q:broken")
    wait_for(lambda: delivered(again) == 1, what="it is delivered when it can be", timeout=30)
    assert faktory.redis("LLEN", "q:broken") == 1


def stored_in(faktory: RealFaktory, key: str) -> set[str]:
    """The jids of a queue."""
    listed = faktory.redis("LRANGE", key, "0", "-1")
    assert isinstance(listed, list)
    return {json.loads(each)["jid"] for each in listed}


def delivered(sidecar: SidecarProcess) -> float:
    return metric(sidecar, "jobs_delivered_total")


def metric(sidecar: SidecarProcess, name: str) -> float:
    """One value of `/metrics`."""
    return metrics(sidecar.http_port)[f"faktory_sidecar_{name}"]
