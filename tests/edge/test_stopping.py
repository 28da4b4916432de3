"""The end: how long it may take, and what is said of jobs that stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from sidecar.app.stopping import Drain
from sidecar.config import Settings
from sidecar.forwarder import Forwarder
from sidecar.intake import Intake
from sidecar.metrics import Counts
from sidecar.upstream.link import Link
from tests.conftest import FaktoryFactory, SidecarFactory
from tests.real.polling import wait_for
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Toxiproxy

UNREACHABLE = "tcp://127.0.0.1:1"


@dataclass
class Scene:
    """What a drain looks at, and how long it took."""

    owed: int = 0
    link_is_up: bool = True
    stored: bool = True
    drain_timeout: float = 25.0
    counts: Counts = field(default_factory=Counts)
    hurried: int = 0
    took: float | None = None
    in_flight: int = 0
    reply_time: float = 0.0
    round_trip: float = 0.05
    taking_until: float = 0.0
    sending_until: float = 0.0

    async def drain(self) -> None:
        started = trio.current_time()
        await Drain(
            cast(Settings, SimpleNamespace(drain_timeout=self.drain_timeout)),
            cast(Intake, _Owed(self)),
            cast(Link, _Pipe(self)),
            cast(Forwarder, self),
            self.counts,
            self.stored,
        ).run()
        self.took = trio.current_time() - started

    def hurry(self) -> None:
        self.hurried += 1

    def stop_sending(self) -> None:
        self.sending_until = trio.current_time()


class _Owed:
    uncommitted = 0

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    @property
    def owed(self) -> int:
        return self._scene.owed

    @property
    def waiting(self) -> int:
        return self._scene.owed

    def stop_taking(self) -> None:
        self._scene.taking_until = trio.current_time()


class _Pipe:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    @property
    def round_trip(self) -> float:
        return self._scene.round_trip

    @property
    def pipe(self) -> object | None:
        return object() if self._scene.link_is_up else None


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.11)


async def test_with_nothing_to_do_it_looks_for_half_a_second(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene()
    await scene.drain()
    assert (scene.took, scene.hurried) == (about(0.5), 1)


async def test_it_goes_on_until_nothing_is_owed_for_half_a_second(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    scene = Scene(owed=5)
    nursery.start_soon(scene.drain)
    await trio.sleep(3.0)
    scene.owed = 0
    await trio.sleep(0.3)
    scene.counts.passing = 1
    await trio.sleep(1.0)
    scene.counts.passing = 0
    await trio.sleep(1.0)
    assert scene.took == about(4.8)


async def test_it_ends_at_its_time_limit(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene(owed=5, in_flight=5, drain_timeout=7.0)
    started = trio.current_time()
    await scene.drain()
    assert scene.took == about(7.0)
    assert scene.taking_until - started == about(7.0 - 2.1)
    assert scene.sending_until - started == about(7.0 - 1.05)


async def test_a_slow_upstream_gets_more_of_the_time_for_its_last_replies(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    scene = Scene(owed=5, in_flight=5, reply_time=3.0)
    started = trio.current_time()
    nursery.start_soon(scene.drain)
    await trio.sleep(22.0)
    scene.in_flight = 0
    await trio.sleep(1.0)
    assert scene.taking_until - started == about(25.0 - 8.0)
    assert scene.sending_until - started == about(25.0 - 4.0)
    assert scene.took == about(22.0)


async def test_without_a_link_and_producers_stored_jobs_are_left_after_a_second(
    autojump_clock: trio.abc.Clock,
) -> None:
    scene = Scene(owed=5, link_is_up=False)
    await scene.drain()
    assert scene.took == about(1.0)


async def test_without_a_link_producers_have_five_seconds(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene(owed=5, link_is_up=False)
    scene.counts.producers = 1
    await scene.drain()
    assert scene.took == about(5.0)


async def test_without_a_link_jobs_in_memory_have_all_the_time(autojump_clock: trio.abc.Clock) -> None:
    scene = Scene(owed=5, link_is_up=False, stored=False)
    await scene.drain()
    assert scene.took == about(25.0 - 1.05)


async def test_a_link_that_comes_back_is_used(nursery: trio.Nursery, autojump_clock: trio.abc.Clock) -> None:
    scene = Scene(owed=5, link_is_up=False)
    scene.counts.producers = 1
    nursery.start_soon(scene.drain)
    await trio.sleep(4.0)
    scene.link_is_up = True
    await trio.sleep(4.0)
    scene.link_is_up = False
    await trio.sleep(4.0)
    scene.link_is_up = True
    scene.owed = 0
    await trio.sleep(2.0)
    assert scene.took == about(12.5)


def stop(sidecar: SidecarProcess, exit_code: int = 0) -> str:
    """SIGTERM; returns the last words."""
    sidecar.terminate()
    assert sidecar.wait() == exit_code
    return str(sidecar.events("stopped")[0]["message"])


def push_jobs(sidecar: SidecarProcess, *jids: str) -> None:
    with sidecar.client() as client:
        for jid in jids:
            assert client.push({"jid": jid, "jobtype": "T", "args": []}) == "OK"


def test_jobs_that_stay_in_the_journal_are_not_said_to_be_lost_with_those_in_memory(
    sidecar_process: SidecarFactory, tmp_path: Path
) -> None:
    settings = {"SIDECAR_HTTP_LISTEN": "off", "SIDECAR_JOURNAL_DIR": str(tmp_path / "one-journal")}
    stored = sidecar_process(UNREACHABLE, settings)
    push_jobs(stored, "stored-one", "stored-two", "stored-three")
    assert stop(stored) == "Stopped. 3 jobs stay in the journal and leave at the next start."
    memory = sidecar_process(UNREACHABLE, settings | {"SIDECAR_ACK": "memory", "SIDECAR_DRAIN_TIMEOUT_S": "1"})
    push_jobs(memory, "only-in-memory", "in-memory-too")
    words = stop(memory, exit_code=70)
    assert "2 acknowledged jobs were only in memory and are lost" in words
    assert "3 jobs stay in the journal" in words
    assert memory.events("stopped")[0]["level"] == "error"


def test_a_drain_serves_on_and_delivers_what_comes_meanwhile(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    sidecar = sidecar_process(server.url, {"SIDECAR_HTTP_LISTEN": "off", "BATCH_MAX_DELAY_MS": "60000"})
    with sidecar.client() as client:
        client.push({"jid": "lingers-long", "jobtype": "T", "args": []})
        sidecar.terminate()
        wait_for(lambda: server.stored(), what="the linger is cut short")
        with sidecar.client() as late:
            late.push({"jid": "came-in-the-drain", "jobtype": "T", "args": []})
    assert sidecar.wait() == 0
    assert {job["jid"] for job in server.stored()} == {"lingers-long", "came-in-the-drain"}
    assert sidecar.events("stopped")[0]["message"] == "Stopped. No job is left behind."


def test_a_second_signal_stops_at_once(sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(
        UNREACHABLE, {"SIDECAR_HTTP_LISTEN": "off", "SIDECAR_ACK": "memory", "SIDECAR_DRAIN_TIMEOUT_S": "60"}
    )
    push_jobs(sidecar, "will-be-lost")
    sidecar.terminate()
    sidecar.wait_for_event("draining")
    sidecar.terminate()
    assert sidecar.wait(5.0) == 70
    assert "1 acknowledged job" in str(sidecar.events("stopped")[0]["message"])


class Load(Thread):
    """A producer that pushes without a pause until it is refused or the connection ends.

    Attributes:
        acknowledged: the jids that got `+OK`.
        refusal: the first reply that was none.
    """

    def __init__(self, sidecar: SidecarProcess, name: str) -> None:
        super().__init__(daemon=True)
        self._client = sidecar.client()
        self._name = name
        self.acknowledged: list[str] = []
        self.refusal = ""
        self.start()

    def run(self) -> None:
        for number in count():
            jid = f"{self._name}-{number:08}"
            try:
                self._client.push({"jid": jid, "jobtype": "T", "args": []})
            except Exception as error:
                self.refusal = str(error)
                return
            self.acknowledged.append(jid)


@pytest.mark.parametrize("mode", ["disk", "memory"])
@pytest.mark.parametrize("kilobytes", [0, 60], ids=["healthy", "slow"])
def test_a_stop_under_load_says_what_became_of_every_job(
    faktory_factory: FaktoryFactory,
    toxiproxy: Toxiproxy,
    sidecar_process: SidecarFactory,
    tmp_path: Path,
    mode: str,
    kilobytes: int,
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=50)
    if kilobytes:
        link.bandwidth(kilobytes)
    settings = {
        "SIDECAR_ACK": mode,
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_DRAIN_TIMEOUT_S": "6",
        "SIDECAR_JOURNAL_DIR": str(tmp_path / "one-journal"),
    }
    sidecar = sidecar_process(server.url_at(link.port), settings)
    sidecar.wait_for_event("link_up")
    loads = [Load(sidecar, f"load-{number}") for number in range(2)]
    wait_for(lambda: all(len(load.acknowledged) > 300 for load in loads), what="the load is there", timeout=30.0)
    sidecar.terminate()
    code = sidecar.wait()
    for load in loads:
        load.join(5.0)
    acknowledged = {jid for load in loads for jid in load.acknowledged}
    assert all("not sent" in load.refusal and "stopping" in load.refusal for load in loads)
    [words] = sidecar.events("stopped")
    lost, doubtful, waiting = (int(words.get(name, 0)) for name in ("lost", "in_doubt", "waiting"))
    if kilobytes == 0:
        assert (code, lost, doubtful, waiting) == (0, 0, 0, 0), words
    link.heal()
    wait_for(lambda: server.waiting_fetches() == 0, what="Faktory has read what was sent")
    arrived = [job["jid"] for job in server.stored()]
    assert len(set(arrived)) == len(arrived)
    missing = acknowledged - set(arrived)
    if mode == "memory":
        assert (code == 70) is (lost > 0)
        assert lost <= len(missing) <= lost + doubtful
        return
    assert (code, lost) == (0, 0)
    assert len(missing) <= waiting
    again = sidecar_process(server.url_at(link.port), settings)
    wait_for(lambda: acknowledged <= {job["jid"] for job in server.stored()}, what="all jobs arrive", timeout=30.0)
    assert stop(again) == "Stopped. No job is left behind."
    arrived = [job["jid"] for job in server.stored()]
    assert len(arrived) - len(set(arrived)) <= doubtful
