"""A job that no batch survives: it is found and set aside, the others go through.

Faktory accepts what the sidecar calls certain, so poison is played by the embedded Faktory, told to misbehave.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from sidecar.demo.embedded import Command, EmbeddedFaktory, Reply
from tests.conftest import SidecarFactory
from tests.demo.embedded_thread import in_thread
from tests.ledger.book import wait_until
from tests.real.sidecar_command import SidecarProcess

JOBS = 240
CULPRITS = ("culprit-one", "culprit-two")
SETTINGS = {"SIDECAR_ACK": "disk", "SIDECAR_HTTP_LISTEN": "off", "BATCH_MAX_SIZE": "50", "SIDECAR_PIPELINE_DEPTH": "8"}


def jobs() -> list[str]:
    """Jids, with the culprits among them."""
    names = [f"harmless-{number:04d}" for number in range(JOBS)]
    names[30], names[177] = CULPRITS
    return names


def push_all(sidecar: SidecarProcess) -> None:
    """Push them at once; all are acknowledged."""
    lines = [json.dumps({"jid": jid, "jobtype": "T", "args": [jid]}) for jid in jobs()]
    with sidecar.client() as client:
        client.send("".join(f"PUSH {line}\r\n" for line in lines).encode())
        assert [client.raw_reply() for _ in lines] == [b"+OK\r\n"] * len(lines)


def has_culprit(command: Command) -> bool:
    """Whether a command carries one."""
    return any(jid.encode() in command.line for jid in CULPRITS)


def test_a_batch_that_is_refused_whole_is_split_until_the_culprit_stands_alone(sidecar_process: SidecarFactory) -> None:
    async def refuse(command: Command) -> Reply | None:
        return Reply(b"-ERR invalid JSON: it is poison\r\n") if has_culprit(command) else None

    server = EmbeddedFaktory(intercept=refuse)
    with in_thread(server):
        sidecar = sidecar_process(server.url, SETTINGS)
        push_all(sidecar)
        found = verified(sidecar, server)
    assert max(found.values()) == 1
    assert {letter["jid"] for letter in sidecar.events("job_dead")} == set(CULPRITS)
    assert all("it is poison" in letter["message"] for letter in sidecar.events("job_dead"))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_batch_that_keeps_killing_the_link_is_split_until_the_culprit_stands_alone(
    sidecar_process: SidecarFactory,
) -> None:
    """It takes a minute and a half: the pause before each reconnect grows to 15 s."""

    async def hang_up(command: Command) -> Reply | None:
        return Reply(close=True) if has_culprit(command) else None

    server = EmbeddedFaktory(intercept=hang_up)
    with in_thread(server):
        sidecar = sidecar_process(server.url, SETTINGS | {"BATCH_MAX_SIZE": "3"})
        push_all(sidecar)
        verified(sidecar, server)
    assert {letter["jid"] for letter in sidecar.events("job_dead")} == set(CULPRITS)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_link_that_dies_of_everything_makes_no_job_a_culprit(sidecar_process: SidecarFactory) -> None:
    """It connects, greets, answers INFO, and ends at each push: that says nothing about the jobs."""
    broken = True

    async def hang_up(command: Command) -> Reply | None:
        return Reply(close=True) if broken and command.verb in ("PUSH", "PUSHB") else None

    server = EmbeddedFaktory(intercept=hang_up)
    with in_thread(server):
        sidecar = sidecar_process(server.url, SETTINGS)
        with sidecar.client() as client:
            for number in range(3):
                assert client.push({"jid": f"harmless-{number}", "jobtype": "T", "args": []}) == "OK"
        wait_until(lambda: len(sidecar.events("link_down")) >= 7, "the link dies many times", timeout=90)
        broken = False
        wait_until(lambda: len(server.store.queues.get("default", ())) >= 3, "all arrive", timeout=40)
    assert not sidecar.events("job_dead")


def verified(sidecar: SidecarProcess, server: EmbeddedFaktory) -> Counter[str]:
    """Everything harmless arrives; then the sidecar stops with nothing left."""
    harmless = set(jobs()) - set(CULPRITS)
    wait_until(lambda: len(sidecar.events("job_dead")) == len(CULPRITS), "the culprits are found", timeout=150)
    wait_until(lambda: len(server.store.queues["default"]) >= len(harmless), "the others arrive", timeout=60)
    sidecar.terminate()
    assert sidecar.wait() == 0
    found = Counter(str(job["jid"]) for job in server.stored())
    assert found.keys() == harmless
    return found
