"""`faktory-sidecar run -- COMMAND`: a program that knows nothing of us delivers every job and keeps its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.clients.programs import GO, NODE_WORKER, PYFAKTORY, Library
from tests.conftest import FaktoryFactory
from tests.e2e.conftest import RunProgram
from tests.journal.running import appended, payload, running
from tests.real.polling import wait_for
from tests.real.sidecar_command import clean_environment
from tests.real.toxiproxy_server import Toxiproxy

pytestmark = [pytest.mark.real, pytest.mark.slow]

RUN = (sys.executable, "-m", "sidecar", "run", "--")


@pytest.mark.parametrize("ack", ["disk", "upstream"])
@pytest.mark.parametrize("library", [PYFAKTORY, GO, NODE_WORKER], ids=lambda library: library.name)
def test_every_job_is_delivered_and_the_exit_code_passed_on(
    faktory_factory: FaktoryFactory,
    toxiproxy: Toxiproxy,
    run_program: RunProgram,
    tmp_path: Path,
    library: Library,
    ack: str,
) -> None:
    faktory = faktory_factory(password="upstr3am")
    link = toxiproxy.link(faktory.port, round_trip=50)
    jobs: list[dict[str, Any]] = [
        {"jid": uuid.uuid4().hex, "jobtype": "Record", "queue": "run", "args": [n]} for n in range(60)
    ]
    program = run_program(
        library,
        faktory.url_at(link.port),
        wrapper=RUN,
        settings={"SIDECAR_ACK": ack, "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal")},
        do="push",
        jobs=jobs,
        exit_code=7,
    )
    assert program.wait() == 7, program.errors()
    assert program.report("pushed") == [job["jid"] for job in jobs]
    # Nothing to wait for: by the end of `run` all of it has been delivered.
    assert sorted(job["jid"] for job in faktory.stored("run")) == sorted(job["jid"] for job in jobs)


def test_a_worker_under_run_works(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, run_program: RunProgram
) -> None:
    faktory = faktory_factory()
    link = toxiproxy.link(faktory.port, round_trip=50)
    with faktory.client() as client:
        jobs = [{"jid": uuid.uuid4().hex, "jobtype": "Parent", "queue": "run", "args": [n]} for n in range(8)]
        assert client.push_bulk(jobs) == {}
    program = run_program(
        NODE_WORKER,
        faktory.url_at(link.port),
        wrapper=RUN,
        settings={"SIDECAR_ACK": "upstream"},
        do="work",
        wid="run-worker",
        queue="run",
        child_queue="children",
        expect=len(jobs),
    )
    program.finish()
    wait_for(lambda: faktory.redis("ZCARD", "working") == 0, what="all jobs are settled")
    children = sorted(job["jid"] for job in faktory.stored("children"))
    assert children == sorted(f"{job['jid']}-child" for job in jobs)
    assert faktory.info()["faktory"]["total_processed"] == len(jobs)


PUSH = """
import os, socket, sys, urllib.parse
url = urllib.parse.urlsplit(os.environ["FAKTORY_URL"])
peer = socket.create_connection((url.hostname, url.port), 5)
replies = peer.makefile("rb")
replies.readline()
peer.sendall(b'HELLO {"v":2}\\r\\nPUSH {"jid":"%s","jobtype":"T","args":[]}\\r\\n' % sys.argv[1].encode())
assert replies.readline() == replies.readline() == b"+OK\\r\\n"
if sys.argv[2:]:
    print("pushed", flush=True)
    sys.stdin.read()
"""


def test_what_overlapping_runs_left_in_an_outage_leaves_with_the_next(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, tmp_path: Path
) -> None:
    faktory = faktory_factory()
    link = toxiproxy.link(faktory.port)
    link.disable()
    environ = clean_environment(
        {"SIDECAR_UPSTREAM": faktory.url_at(link.port), "HOME": str(tmp_path), "XDG_STATE_HOME": ""}
    )
    python = [sys.executable, "-m", "sidecar", "run", "--", sys.executable, "-c"]
    with subprocess.Popen(
        [*python, PUSH, "first-run-1", "wait"], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == b"pushed\n"
        subprocess.run([*python, PUSH, "second-run-2"], env=environ, timeout=60)
        first.stdin.close()
        first.wait(60)
    link.enable()
    assert faktory.stored() == []
    subprocess.run([*python, "pass"], env=environ, check=True, timeout=60)
    assert sorted(job["jid"] for job in faktory.stored()) == ["first-run-1", "second-run-2"]
    assert list((tmp_path / ".local" / "state" / "faktory-sidecar").iterdir()) == []  # emptied ones are deleted


def test_a_kill_while_a_left_journal_is_being_sent_loses_nothing(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, tmp_path: Path
) -> None:
    faktory = faktory_factory()
    link = toxiproxy.link(faktory.port, round_trip=100)
    upstream = faktory.url_at(link.port)
    state = tmp_path / ".local" / "state" / "faktory-sidecar"
    identity = upstream.rpartition("@")[2].removeprefix("tcp://")
    slot = state / f"{identity.replace(':', '_')}.run-2"

    async def leave() -> None:
        async with running(slot, upstream=f"tcp://{identity}") as journal:
            await appended(journal, [payload(n) for n in range(1_000)])

    trio.run(leave)
    settings = {"SIDECAR_UPSTREAM": upstream, "HOME": str(tmp_path), "XDG_STATE_HOME": "", "SIDECAR_LOG_FORMAT": "json"}
    slowly = {"BATCH_MAX_SIZE": "10", "SIDECAR_PIPELINE_DEPTH": "2"}
    with subprocess.Popen(
        [*RUN, sys.executable, "-c", "input()"], env=clean_environment(settings | slowly), stdin=subprocess.PIPE
    ) as first:
        wait_for(lambda: len(faktory.stored()) >= 100, what="the left journal is being sent")
        first.kill()
    before = len(faktory.stored())
    assert before < 1_000
    second = subprocess.run(
        [*RUN, sys.executable, "-c", "pass"],
        env=clean_environment(settings),
        check=True,
        timeout=60,
        capture_output=True,
    )
    jids = [job["jid"] for job in faktory.stored()]
    assert {*jids} == {f"{n:016d}" for n in range(1_000)}
    told = [json.loads(line) for line in second.stderr.splitlines()]
    (doubt,) = [record["in_doubt"] for record in told if record["event"] == "crash_in_doubt"]
    assert len(jids) - 1_000 <= doubt
    assert list(state.iterdir()) == []
