"""The soak: honest clients and hostile ones on one sidecar, a Faktory behind a WAN, and troubles; then the verdict."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

from sidecar.memory import TIDY_EVERY
from tests.ledger.book import QUEUE
from tests.ledger.ear import Ear
from tests.ledger.troubles import TROUBLES, Scene, Trouble
from tests.real.faktory_server import RealFaktory
from tests.real.ports import free_port
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Toxiproxy
from tests.soak.findings import Findings, Span
from tests.soak.honest import Honest
from tests.soak.samples import Sample, descriptors, look

ROUND_TRIP = 50  # milliseconds
MEMORY = 64  # MiB, the default of SIDECAR_MEMORY_MAX_BYTES
ROOM = 160
"""MiB that the process may take beside its memory for jobs."""
CALM_EVERY, CALM = 45.0, TIDY_EVERY + 2.0
"""Seconds of attacks between two pauses, and of a pause, in which memory is compared: freed pages are given back."""
TROUBLE_EVERY = (6.0, 18.0)
"""Seconds between two troubles."""
AFTERMATH = 20.0
"""Seconds after a trouble in which its traces are explained: the longest backoff, and the backlog."""
ARRIVAL_LIMIT = 120.0
REST, REST_LIMIT = 20, 30.0
"""Looks in a row with the same number of descriptors, and seconds until it must be there."""

LASTS: dict[str, tuple[float, float]] = {
    "cut": (0.0, 0.1),
    "away": (1.0, 15.0),
    "restart": (0.0, 0.1),
    "stall": (1.0, 8.0),
    "memory": (2.0, 8.0),
    "redis-dies": (0.5, 4.0),
    "log": (3.0, 15.0),
    "quota": (3.0, 15.0),
    "freeze": (6.0, 17.0),
    "term": (0.0, 0.1),
    "hup": (0.0, 0.1),
}
"""Seconds between the beginning of a trouble and its end."""


def _freeze(scene: Scene) -> None:
    scene.process().process.send_signal(signal.SIGSTOP)


def _thaw(scene: Scene) -> None:
    scene.process().process.send_signal(signal.SIGCONT)


class Stage:
    """One soak.

    Args:
        seconds: how long; the count afterwards comes on top.
        without: names of troubles and attacks that are left out.
        restarts_until: seconds after which the sidecar is not started anew, so that its memory can be compared.
    """

    def __init__(
        self,
        seconds: float,
        seed: int,
        room: Path,
        *,
        without: Collection[str] = (),
        say: Callable[[str], None] = print,
    ) -> None:
        self._seconds = seconds
        self._seed = seed
        self._dice = random.Random(seed)
        self._room = room
        self._without = set(without)
        self._say = say
        self.restarts_until = min(600.0, seconds * 0.4)
        self._toxiproxy = Toxiproxy()
        self._server = RealFaktory()
        self._ear = Ear(self._server)
        self._port, self._http_port = free_port(), free_port()
        self._process: SidecarProcess | None = None
        self.found = Findings()
        self.honest = Honest(self.found.book, lambda: self._port, lambda: self._http_port)
        own = (
            Trouble("freeze", _freeze, _thaw, lost_links=1, ours=True),
            Trouble("term", lambda _: self._again(signal.SIGTERM), ours=True, explains=("stopped",)),
            Trouble("hup", lambda _: self._again(signal.SIGHUP), ours=True, explains=("stopped",)),
        )
        self._troubles = [one for one in (*TROUBLES.values(), *own) if one.name not in self._without]
        self._deck: list[Trouble] = []

    @property
    def now(self) -> float:
        """Seconds since the soak began."""
        return time.monotonic() - self.found.began

    def run(self) -> Findings:
        """Play it to its end.

        Raises:
            AssertionError: the sidecar ended by itself, or doesn't end.
        """
        try:
            self._toxiproxy.start()
            self._server.start()
            self._ear.attach()
            link = self._toxiproxy.link(self._server.port, round_trip=ROUND_TRIP)
            self._scene = Scene(self._server, link, self._alive, self._room / "journal", self._dice, self._ear)
            self.found.began = time.monotonic()
            self._start()
            self.found.descriptors_before = self._descriptors_at_rest()
            self._play()
            self._end()
        finally:
            if self._process is not None and self._process.exit_code is None:
                self._process.process.send_signal(signal.SIGCONT)
                self._process.kill()
            self._server.dispose()
            self._toxiproxy.stop()
        return self.found

    # the play ------------------------------------------------------------------------------------------------------

    def _play(self) -> None:
        self.honest.start()
        with self._hostile() as hostile:
            calm_at, trouble_at = CALM_EVERY, self._dice.uniform(*TROUBLE_EVERY)
            _tell(hostile, "go")
            while self.now < self._seconds:
                self._watch(1.0)
                if self.now >= calm_at:
                    _tell(hostile, "calm")
                    before = len(self.found.samples)
                    self._watch(CALM)
                    least = min(self.found.samples[before:], key=lambda sample: sample.rss)
                    self.found.calm.append(least)
                    self._report(least)
                    _tell(hostile, "go")
                    calm_at = self.now + CALM_EVERY
                elif self.now >= trouble_at:
                    self._trouble()
                    trouble_at = self.now + self._dice.uniform(*TROUBLE_EVERY)
            self.found.attacks = _tell(hostile, "calm")
            assert hostile.stdin is not None
            hostile.stdin.close()

    def _hostile(self) -> subprocess.Popen[str]:
        left_out = [word for name in sorted(self._without) for word in ("--without", name)]
        command = [sys.executable, "-m", "tests.soak.hostile", str(self._port), str(self._http_port), str(self._seed)]
        return subprocess.Popen([*command, *left_out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _watch(self, seconds: float) -> None:
        """Take a sample a second, and see that it lives; what has arrived is thrown out of Faktory."""
        until = self.now + seconds
        while True:
            if sample := self._look():
                self.found.samples.append(sample)
            process = self._alive()
            code = process.exit_code
            assert code is None, f"it ended by itself with {code}:\n{process.log_text()[-3000:]}"
            if self.now >= until:
                return
            time.sleep(min(1.0, max(0.0, until - self.now)))

    def _trouble(self) -> None:
        if not self._deck:
            self._deck = self._dice.sample(self._troubles, len(self._troubles))
        if not self._deck:
            return
        trouble = self._deck.pop()
        if trouble.name in ("term", "hup") and self.now > self.restarts_until:
            return
        begin = self.now
        trouble.begin(self._scene)
        self._watch(self._dice.uniform(*LASTS[trouble.name]))
        trouble.mend(self._scene)
        self.found.spans.append(Span(trouble.name, begin, self.now + AFTERMATH, trouble.explains))
        self._server.redis("DEL", f"q:{QUEUE}", "q:hostile")

    def _look(self) -> Sample | None:
        return look(self._alive().process.pid, self.now, len(self.found.book.accepted))

    def _report(self, sample: Sample) -> None:
        last = self.found.spans[-1].name if self.found.spans else "none"
        self._say(
            f"{sample.at:6.0f} s  {sample.acknowledged:>10,} jobs  RSS {sample.rss:6.1f} MiB, most {sample.peak:6.1f}  "
            f"{sample.descriptors:>4} descriptors  last trouble: {last}"
        )

    # the process ---------------------------------------------------------------------------------------------------

    def _alive(self) -> SidecarProcess:
        assert self._process is not None
        return self._process

    def _start(self) -> None:
        settings = {
            "SIDECAR_UPSTREAM": self._server.url_at(self._scene.link.port),
            "SIDECAR_JOURNAL_DIR": str(self._scene.journal),
            "SIDECAR_LISTEN": f"localhost:{self._port}",
            "SIDECAR_HTTP_LISTEN": f"localhost:{self._http_port}",
            "SIDECAR_DRAIN_TIMEOUT_S": "30",
        }
        self.found.lives += 1
        self._process = SidecarProcess(self._room / f"life{self.found.lives}", settings, piped=True)
        self._process.wait_until_listening()

    def _again(self, how: signal.Signals) -> None:
        """Ask for a drain, and start anew."""
        process = self._alive()
        process.process.send_signal(how)
        code = process.wait(60)
        assert code == 0, f"exit code {code} after {how.name}:\n{process.log_text()[-3000:]}"
        self._hear(process)
        self._start()

    def _hear(self, process: SidecarProcess) -> None:
        """Keep what the process has logged, and add up what it has said to be in doubt."""
        start = time.time() - self.now
        for record in process.log():
            written = str(record.get("timestamp", ""))
            at = datetime.fromisoformat(written).timestamp() - start if written else self.now
            self.found.records.append((at, record))
            self.found.said += int(record.get("in_doubt", 0))

    def _descriptors_at_rest(self, most: int | None = None) -> int:
        """What it holds with its link and side connection up, and nobody connected.

        Args:
            most: what it held before: that many are waited for.
        """
        process = self._alive()
        process.wait_for_event("link_up")
        with process.client() as client:
            client.info()
        seen: list[int] = []
        until = time.monotonic() + REST_LIMIT
        while time.monotonic() < until and (
            len(set(seen[-REST:])) != 1 or len(seen) < REST or seen[-1] > (most or 9**9)
        ):
            seen.append(descriptors(process.process.pid))
            time.sleep(0.05)
        return seen[-1]

    def _end(self) -> None:
        """See what it holds with nobody connected, let all arrive, and listen for the last time."""
        self.honest.stop()
        self.found.descriptors_after = self._descriptors_at_rest(self.found.descriptors_before)
        process = self._alive()
        process.process.send_signal(signal.SIGTERM)
        code = process.wait(ARRIVAL_LIMIT)
        assert code == 0, f"exit code {code}\n{process.log_text()[-3000:]}"
        self._hear(process)
        self.found.stopped = str(process.events("stopped")[0]["message"])
        self.found.arrived = self._ear.heard()
        self.found.reserved = self._reserved()

    def _reserved(self) -> set[str]:
        """Jids that Faktory thinks a worker has."""
        listed = self._server.redis("ZRANGE", "working", "0", "-1")
        assert isinstance(listed, list)
        # hostile jobs are too deep for a parser; the jid is the first that Faktory writes of a job
        return {match[1] for one in listed if (match := re.search(r'"jid":"([^"]*)"', str(one)))}


def _tell(hostile: subprocess.Popen[str], word: str) -> dict[str, int]:
    """Give the attackers a word; returns what they have done so far."""
    assert hostile.stdin is not None
    assert hostile.stdout is not None
    hostile.stdin.write(f"{word}\n")
    hostile.stdin.flush()
    done: dict[str, int] = json.loads(hostile.stdout.readline())
    return done
