"""The sidecar is frozen (SIGSTOP, as `docker pause` and a machine's migration do it) while replies arrive."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest

from sidecar.upstream.pipe import REPLY_TIMEOUT
from tests.conftest import FaktoryFactory, SidecarFactory
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Toxiproxy

PRODUCERS, EACH = 10, 200
ON_THE_WAY = 1.0
"""Seconds that replies take, so that the freeze comes between the jobs' arrival and theirs."""
LONG = REPLY_TIMEOUT + 2.0


class Frozen:
    """Producers, each with a bulk of its own, and a sidecar that is frozen as soon as all jobs are in Faktory."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self._sidecar = sidecar
        self.answers: list[bytes] = []

    def run(self, server: RealFaktory, seconds: float) -> None:
        threads = [threading.Thread(target=self._produce, args=(number,)) for number in range(PRODUCERS)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(server.stored()) == PRODUCERS * EACH, what="all jobs are in Faktory")
        self._sidecar.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)  # what is tested is this time
        self._sidecar.process.send_signal(signal.SIGCONT)
        for thread in threads:
            thread.join()

    def _produce(self, number: int) -> None:
        jobs = [{"jid": f"frozen-{number}-{i:04}", "jobtype": "T", "args": []} for i in range(EACH)]
        with self._sidecar.client(timeout=60.0) as client:
            self.answers.append(client.raw_call("PUSHB " + json.dumps(jobs)))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("ack", ["disk", "memory", "upstream"])
def test_replies_that_arrived_meanwhile_are_read(
    ack: str, faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port)
    sidecar = sidecar_process(server.url_at(link.port), {"SIDECAR_ACK": ack})
    sidecar.wait_for_event("link_up")
    link.latency(int(ON_THE_WAY * 1000))
    frozen = Frozen(sidecar)
    frozen.run(server, LONG)
    assert set(frozen.answers) <= {b"$2\r\n{}\r\n", b""}
    with sidecar.client() as client:  # goes behind all that was sent again
        assert client.push({"jid": "after-the-freeze", "jobtype": "T", "args": []}) == "OK"
    wait_for(lambda: server.stored()[-1]["jid"] == "after-the-freeze", what="the last job")
    sidecar.terminate()
    assert sidecar.wait() == 0
    assert len(server.stored()) == PRODUCERS * EACH + 1
    assert not [record for record in sidecar.log() if record.get("event") in ("link_down", "job_dead")]
