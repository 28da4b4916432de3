"""Real Faktory servers from before 1.6, which have no `PUSHB` and begin their texts with a capital."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.upstream.refusals import Meaning, meaning
from tests.cli.command_line import sidecar as command
from tests.conftest import FaktoryFactory, SidecarFactory
from tests.ops.asking import health, metrics
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient, ServerError

JOBS = 20


def job(jid: str, **fields: object) -> str:
    return json.dumps({"jid": jid, "jobtype": "t", "args": [1], "queue": "plain"} | fields)


def refusal(client: RawClient, line: str) -> str:
    """What a server says against a command, without `ERR `."""
    client.send(line)
    with pytest.raises(ServerError) as caught:
        client.reply()
    return str(caught.value).removeprefix("ERR ")


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_every_job_arrives_and_health_tells_the_truth(
    mode: str, old_part: str, faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory
) -> None:
    faktory = faktory_factory(part=old_part)
    sidecar = sidecar_process(faktory.url, {"SIDECAR_ACK": mode})
    with RawClient(sidecar.port) as client:
        jids = [f"old-job-{i}" for i in range(JOBS)]
        client.send(f"PUSHB [{','.join(map(job, jids[: JOBS // 2]))}]")
        assert client.reply() == "{}"
        for jid in jids[JOBS // 2 :]:
            client.send(f"PUSH {job(jid)}")
            assert client.reply() == "OK"
    wait_for(lambda: faktory.redis("LLEN", "plain") == JOBS, what="all arrive")
    found = metrics(sidecar.http_port)
    assert found["faktory_sidecar_jobs_delivered_total"] == JOBS
    assert found['faktory_sidecar_jobs_rejected_total{fate="dead_letter"}'] == 0
    assert found["faktory_sidecar_jobs_resent_total"] == 0, "the version tells; nothing is tried in vain"
    assert sidecar.wait_for_event("pushb_unsupported")["message"].startswith(f"Faktory {old_part[-3:]}")
    status, facts = health(sidecar.http_port, "/readyz")
    assert status == 200
    assert facts["upstream"] == "up"


def test_check_says_that_there_is_no_pushb(old_part: str, faktory_factory: FaktoryFactory, tmp_path: Path) -> None:
    faktory = faktory_factory(part=old_part)
    here = {"SIDECAR_LISTEN": "localhost:0", "SIDECAR_HTTP_LISTEN": "localhost:0"}
    there = {"SIDECAR_UPSTREAM": faktory.url, "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal")}
    ended = command("check", environ=here | there)
    assert ended.returncode == 0
    assert "no PUSHB; round trip" in ended.stdout
    assert "jobs leave one by one, pipelined" in ended.stdout


def test_its_texts_are_understood(old_part: str, faktory_factory: FaktoryFactory) -> None:
    faktory = faktory_factory(part=old_part)
    with faktory.client() as client:
        assert meaning(refusal(client, f"PUSHB [{job('long-enough')}]")) is Meaning.UNSUPPORTED
        about_jobs = [
            "PUSH {",
            f"PUSH {job('short')}",
            f"PUSH {job('long-enough', jobtype='')}",
            f"PUSH {job('long-enough', args=None)}",
            f"PUSH {job('long-enough', queue='a b')}",
            f"PUSH {job('long-enough', at='tomorrow')}",
            f"PUSH {job('long-enough', retry='often')}",
        ]
        for line in about_jobs:
            assert meaning(refusal(client, line)) is Meaning.FINAL, line
        faktory.redis("REPLICAOF", "127.0.0.1", "1")
        at = "2999-01-01T00:00:00Z"  # up to 1.8 an LPUSH that Redis refuses is answered with +OK
        assert meaning(refusal(client, f"PUSH {job('long-enough', at=at)}")) is Meaning.TRANSIENT


def test_who_waits_is_told_its_words(
    old_part: str, faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory
) -> None:
    faktory = faktory_factory(part=old_part)
    sidecar = sidecar_process(faktory.url, {"SIDECAR_ACK": "upstream"})
    with RawClient(sidecar.port) as client:
        client.send(f"PUSH {job('good-job-1')}")
        assert client.reply() == "OK"
        assert meaning(refusal(client, f"PUSH {job('short')}")) is Meaning.FINAL
    assert faktory.redis("LLEN", "plain") == 1
