"""Any order of pushes, barriers, replies, refusals, lost links, crashes and restarts against a simple model.

The model: what was acknowledged, what upstream stored, what is dead, and how many jobs were in doubt.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.jobs import Origin
from sidecar.protocol.jobs import Job
from tests.model.world import BATCH, DEPTH, Run, Upstream

SETTLE_BUFFER = 6
ORIGINS = st.integers(0, 2)
FEW = st.integers(0, DEPTH)
OOM = b"-ERR OOM command not allowed when used memory > 'maxmemory'.\r\n"
TIMEOUT = b'-ERR cannot get "default" queue: redis: context deadline exceeded\r\n'
SHUTDOWN = b"-ERR shutdown in progress\r\n"
STRANGE = b"-ERR nobody has ever seen this\r\n"

SMALL = {
    "sidecar.forwarder.backlog.PAGE_ROWS": 5,
    "sidecar.forwarder.settlement.SETTLE_BUFFER": SETTLE_BUFFER,
    "sidecar.journal.pending.SETTLE_DELAY": 0.002,
}
"""Limits of the product, made so small that some dozens of jobs reach them."""


class Sidecar(RuleBasedStateMachine):
    """Intake, journal, forwarder and link, from push to settlement, over any number of processes."""

    @initialize()
    def start(self) -> None:
        self.patches = [mock.patch(name, value) for name, value in SMALL.items()]
        for patch in self.patches:
            patch.start()
        self.room = tempfile.TemporaryDirectory(prefix="model-")
        self.upstream = Upstream()
        self.lives = 0
        self.number = 0
        self.doubt = 0  # jobs that may have been stored twice, at most
        self.acknowledged: dict[str, int] = {}  # jid -> the life in which it was
        self.pushed: dict[tuple[int, int], list[str]] = {}
        self.confirmed: set[str] = set()
        self.told: dict[str, str] = {}
        self.unkept: list[str] = []  # barriers that passed too early
        self.dead: set[str] = set()
        self.begin(Path(self.room.name) / "life0")

    def begin(self, directory: Path) -> None:
        self.run = Run(directory, self.upstream)
        self.origins: list[Origin] = [self.run.intake.origin() for _ in range(3)]

    def jobs(self, count: int, origin: int, *, confirmed: bool = False) -> list[Job]:
        jobs = []
        for _ in range(count):
            self.number += 1
            jid = f"job-{self.number:06d}"
            padding = "x" * (self.number * 7 % 300)
            jobs.append(Job(jid, b'{"jid":"%s","args":["%s"]}' % (jid.encode(), padding.encode()), confirmed))
        if confirmed:
            self.confirmed.update(job.jid for job in jobs)
        else:
            self.pushed.setdefault((self.lives, origin), []).extend(job.jid for job in jobs)
        return jobs

    def note(self) -> None:
        """Take over what this life has told its producers."""
        self.told |= self.run.told
        for jid, text in self.run.told.items():
            if text == "ok" and jid not in self.confirmed:
                self.acknowledged.setdefault(jid, self.lives)

    # rules ---------------------------------------------------------------------------------------------------------

    @rule(origin=ORIGINS, count=st.integers(1, 9), linger=st.booleans())
    def push(self, origin: int, count: int, *, linger: bool) -> None:
        self.run.push(self.jobs(count, origin), self.origins[origin], linger=linger)
        self.note()

    @rule(origin=ORIGINS, kind=st.sampled_from(["unfit", "poison", "killers"]))
    def push_a_bad_one(self, origin: int, kind: str) -> None:
        jobs = self.jobs(3, origin)
        getattr(self.upstream, kind).add(jobs[1].jid)
        self.run.push(jobs, self.origins[origin])
        self.note()

    @rule(origin=ORIGINS)
    def push_a_confirmed_one(self, origin: int) -> None:
        self.run.push(self.jobs(1, origin, confirmed=True), self.origins[origin])
        self.note()

    @rule(origin=ORIGINS)
    def barrier(self, origin: int) -> None:
        before = [jid for jid in self.pushed.get((self.lives, origin), []) if jid in self.acknowledged]
        run = self.run

        def act() -> None:
            epoch = self.origins[origin].close_epoch()
            epoch.wait(lambda: self.passed(before))
            if not epoch.passed:
                run.forwarder.promote(epoch)

        run.do(act)

    @rule(origin=ORIGINS)
    def a_producer_leaves(self, origin: int) -> None:
        """Its jobs stay; nobody can wait for them any more, and another producer comes."""
        self.run.do(lambda: self.origins.__setitem__(origin, self.run.intake.origin()))
        gc.collect()
        if (jids := self.pushed.pop((self.lives, origin), None)) is not None:
            self.number += 1
            self.pushed[self.lives, self.number] = jids

    @rule()
    def flush(self) -> None:
        before = [jid for jid, life in self.acknowledged.items() if life == self.lives]
        self.run.do(lambda: self.run.forwarder.when_all_settled(lambda: self.passed(before)))

    def passed(self, before: list[str]) -> None:
        dead = self.upstream.unfit | self.upstream.poison | self.upstream.killers
        self.unkept += [jid for jid in before if jid not in self.upstream.stored and jid not in dead]

    @rule(commands=st.integers(1, 6))
    def upstream_answers(self, commands: int) -> None:
        self.run.answer(commands)
        self.note()

    @rule(reply=st.sampled_from([OOM, TIMEOUT, SHUTDOWN]), carried_out=st.booleans())
    def upstream_is_unwell(self, reply: bytes, *, carried_out: bool) -> None:
        applied = carried_out and reply == TIMEOUT
        self.doubt += BATCH if applied else 0
        lost = self.run.counts.in_doubt
        self.run.refuse(reply, carried_out=applied)
        self.doubt += self.run.counts.in_doubt - lost
        self.note()

    @rule(carried_out=FEW)
    def link_is_lost(self, carried_out: int) -> None:
        doubt = self.run.lose_link(carried_out)
        assert doubt <= DEPTH * BATCH
        self.doubt += doubt
        self.note()

    @rule()
    def link_comes_back(self) -> None:
        self.run.do(self.run.link.up)

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.5, 4.1, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.run.wait(seconds)
        self.note()

    @precondition(lambda self: self.lives < 4)
    @rule(carried_out=FEW)
    def crash_and_restart(self, carried_out: int) -> None:
        self.note()
        directory = Path(self.room.name) / f"life{self.lives + 1}"
        in_flight = self.run.crash(carried_out, directory)
        assert in_flight <= DEPTH * BATCH
        self.doubt += DEPTH * BATCH + SETTLE_BUFFER
        self.lives += 1
        self.begin(directory)

    # what must always be so ----------------------------------------------------------------------------------------

    @invariant()
    def nothing_goes_too_far(self) -> None:
        if not hasattr(self, "run"):
            return
        assert not self.unkept, f"a barrier passed before {self.unkept}"
        assert self.run.forwarder.in_flight <= DEPTH * BATCH
        assert self.run.forwarder.unsettled >= 0
        extra = sum(self.upstream.stored.values()) - len(self.upstream.stored)
        assert extra <= self.doubt, f"{extra} copies, {self.doubt} were in doubt: {copies(self.upstream.stored)}"
        assert all(self.upstream.stored[jid] <= 1 for jid in self.confirmed), "a job with a verdict was sent twice"
        for jid in self.confirmed:
            text = self.told.get(jid, "")
            assert not (text == "ok" and jid not in self.upstream.stored), f"{jid} was confirmed and isn't there"
            assert not (text.startswith("not sent") and jid in self.upstream.seen), f"{jid}: {text}"

    @invariant()
    def first_sends_keep_the_order(self) -> None:
        if not hasattr(self, "run"):
            return
        place = {jid: number for number, jid in enumerate(self.upstream.seen)}
        for jids in self.pushed.values():
            sent = [jid in place for jid in jids if jid in self.acknowledged]
            assert sent == sorted(sent, reverse=True), f"one was overtaken: {jids}"
            order = [place[jid] for jid in jids if jid in place]
            assert order == sorted(order), f"sent in another order than pushed: {jids}"

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        try:
            self.drain()
            self.note()
            self.nothing_goes_too_far()
            bad = self.upstream.unfit | self.upstream.poison | self.upstream.killers
            lost = self.acknowledged.keys() - self.upstream.stored.keys() - bad
            assert not lost, f"acknowledged and lost: {sorted(lost)}"
            assert self.run.forwarder.unsettled == 0
            assert self.run.rows() == []
            known = self.acknowledged.keys() & bad
            assert self.run.journal.dead == len(known), "bad jobs become dead letters, all of them and no others"
        finally:
            self.run.end()
            self.room.cleanup()
            for patch in self.patches:
                patch.stop()

    def drain(self) -> None:
        """Everything works again: after some while nothing is left.

        A job that kills the link is convicted only when others go through, so some more are pushed.
        """
        until = time.monotonic() + 20
        step = 0
        while self.run.forwarder.unsettled or self.run.journal.waiting:
            self.run.do(self.run.link.up)
            self.run.answer(10)
            self.run.wait(5.0)
            step += 1
            if self.upstream.killers and step % 4 == 0:
                self.run.push(self.jobs(1, 0), self.origins[0], linger=False)
            assert time.monotonic() < until, f"{self.run.forwarder.unsettled} jobs never leave"


def copies(stored: Counter[str]) -> dict[str, int]:
    return {jid: count for jid, count in stored.items() if count > 1}


PROFILE: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.timeout(240)
class TestSidecar(Sidecar.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=int(os.environ.get("MODEL_EXAMPLES", "40")), stateful_step_count=30, **PROFILE)
