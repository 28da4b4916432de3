"""Kills the sidecar at random, again and again, and then counts.

The real program, a real Faktory behind a delayed link, producers of all kinds that write down each acknowledged job
before they send the next. Besides `kill -9`, also while it starts and recovers: SIGTERM, cut links, links that stay
down, Faktory restarted. At the end of each round everything is let to arrive, and what was acknowledged is compared
with what Faktory has.

Faktory's own durability is kept out of it: Faktory is only ever stopped with SIGTERM, upon which its Redis saves.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from tests.ledger.book import Book, duplicates, upstream_jobs
from tests.ledger.producers import (
    BulkProducer,
    HttpProducer,
    PipelinedProducer,
    Producer,
    SerialProducer,
)
from tests.real.faktory_server import RealFaktory
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Link, Toxiproxy

DEPTH, BATCH = 8, 50
SETTLE_BUFFER = 1_000
ROUND_TRIP = 50  # milliseconds
LONGEST_LIFE = 0.6
"""Seconds from listening to the next event."""
LONGEST_START = 0.9
"""Seconds after the spawn within which a kill hits the start or the recovery."""
KILL_IN_START, TERMINATE, CUT, STAY_DOWN, RESTART_FAKTORY = 0.2, 0.1, 0.15, 0.15, 0.04
"""How often, of all cycles."""
ARRIVAL_LIMIT = 120.0
"""Seconds of the last drain of a round: all that was acknowledged must be upstream by then."""


@dataclass
class Tally:
    """What happened in a round."""

    kills: int = 0
    in_start: int = 0
    sigterms: int = 0
    cuts: int = 0
    restarts: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    refused: int = 0
    upstream: int = 0
    lost: int = 0
    duplicates: int = 0
    bound: int = 0

    def add(self, other: Tally) -> None:
        """Sum up."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def row(self, name: str) -> str:
        """A line of the table."""
        return f"{name:>6}" + "".join(f" {getattr(self, one.name):>12,}" for one in fields(self))


HEADING = f"{'round':>6}" + "".join(f" {one.name.replace('_', ' '):>12}" for one in fields(Tally))


class Driver:
    """One run.

    Args:
        seed: of all that is random here; what the scheduler and the network do is not repeated with it.
        room: directory for the journal and the logs.
        say: prints a line.
    """

    def __init__(self, seed: int, room: Path, say: Callable[[str], None] = print) -> None:
        self._random = random.Random(seed)
        self._room = room
        self._say = say
        self._toxiproxy = Toxiproxy()
        self._server = RealFaktory()
        self._book = Book()
        self._ports: tuple[int, int] | None = None
        self._lives = 0
        self._process: SidecarProcess | None = None
        self._producers: list[Producer] = []

    def run(self, kills: int, per_round: int) -> Tally:
        """Kill so often; returns the sum of all rounds.

        Raises:
            AssertionError: a job was lost, or something else that must never be.
        """
        total = Tally()
        self._say(HEADING)
        try:
            self._toxiproxy.start()
            self._server.start()
            link = self._toxiproxy.link(self._server.port, round_trip=ROUND_TRIP)
            number = 0
            while total.kills < kills:
                number += 1
                tally = self._round(number, link, min(per_round, kills - total.kills))
                self._say(tally.row(str(number)))
                total.add(tally)
        finally:
            if self._process is not None and self._process.exit_code is None:
                self._process.kill()
            self._ports = None
            self._stop_producers()
            self._server.dispose()
            self._toxiproxy.stop()
        self._say(total.row("all"))
        return total

    # a round -------------------------------------------------------------------------------------------------------

    def _round(self, number: int, link: Link, kills: int) -> Tally:
        tally = Tally()
        self._book = Book()
        self._start_producers(number)
        while tally.kills < kills:
            self._cycle(link, tally)
        self._stop_producers_while_served(link, tally)
        return tally

    def _cycle(self, link: Link, tally: Tally) -> None:
        """One life of the process."""
        dice = self._random
        if dice.random() < STAY_DOWN:
            link.disable()
        process = self._spawn(link)
        if dice.random() < KILL_IN_START:
            time.sleep(dice.uniform(0.0, LONGEST_START))
            tally.in_start += 1
            self._kill(process, tally)
        else:
            self._serve(process)
            time.sleep(dice.uniform(0.0, LONGEST_LIFE))
            self._trouble(link, tally)
            time.sleep(dice.uniform(0.0, LONGEST_LIFE / 2))
            if dice.random() < TERMINATE:
                self._terminate(process, tally)
            else:
                self._kill(process, tally)
        link.enable()

    def _trouble(self, link: Link, tally: Tally) -> None:
        what = self._random.random()
        if what < RESTART_FAKTORY:
            tally.restarts += 1
            self._server.restart()
        elif what < RESTART_FAKTORY + CUT:
            tally.cuts += 1
            link.cut()

    def _stop_producers_while_served(self, link: Link, tally: Tally) -> None:
        """Let everything arrive, stop gracefully, and count."""
        process = self._spawn(link, drain=ARRIVAL_LIMIT)
        self._serve(process)
        self._stop_producers()
        book = self._book
        process.terminate()
        code = process.wait(ARRIVAL_LIMIT + 20)
        self._ports = None
        assert code == 0, f"exit code {code}\n{process.log_text()[-3000:]}"
        stopped = process.events("stopped")[0]["message"]
        assert stopped == "Stopped. No job is left behind.", stopped
        stored = upstream_jobs(self._server)
        tally.acknowledged, tally.unanswered, tally.refused = (
            len(book.accepted),
            len(book.unanswered),
            len(book.refused),
        )
        tally.upstream = sum(stored.values())
        tally.lost = len(book.accepted - stored.keys())
        tally.duplicates = duplicates(stored)
        tally.bound = tally.kills * (DEPTH * BATCH + SETTLE_BUFFER) + (tally.cuts + tally.restarts) * DEPTH * BATCH
        false = book.false_replies(stored)
        assert not false, f"{len(false)} false replies: {false[:5]}"
        assert tally.duplicates <= tally.bound, tally
        assert not process.events("journal_damaged"), process.events("journal_damaged")
        self._server.flush()

    # processes -----------------------------------------------------------------------------------------------------

    def _spawn(self, link: Link, *, drain: float | None = None) -> SidecarProcess:
        self._lives += 1
        if drain is None:
            drain = self._random.choice((1, 30))
        settings = {
            "SIDECAR_UPSTREAM": self._server.url_at(link.port),
            "SIDECAR_ACK": "disk",
            "SIDECAR_JOURNAL_DIR": str(self._room / "journal"),
            "SIDECAR_PIPELINE_DEPTH": str(DEPTH),
            "BATCH_MAX_SIZE": str(BATCH),
            "BATCH_MAX_DELAY_MS": str(self._random.choice((0, 10, 50))),
            # Little memory makes the backlog live on the disk.
            "SIDECAR_MEMORY_MAX_BYTES": self._random.choice(("64MiB", "1MiB")),
            "SIDECAR_DRAIN_TIMEOUT_S": f"{drain:g}",
        }
        self._process = SidecarProcess(self._room / f"life{self._lives % 4}", settings)
        return self._process

    def _serve(self, process: SidecarProcess) -> None:
        process.wait_until_listening()
        self._ports = (process.port, process.http_port)

    def _kill(self, process: SidecarProcess, tally: Tally) -> None:
        tally.kills += 1
        code = process.kill()
        self._ports = None
        assert code == -9, f"it had ended by itself with {code}:\n{process.log_text()[-3000:]}"

    def _terminate(self, process: SidecarProcess, tally: Tally) -> None:
        tally.sigterms += 1
        process.terminate()
        code = process.wait(90)
        self._ports = None
        assert code == 0, f"exit code {code} after SIGTERM:\n{process.log_text()[-3000:]}"

    # producers -----------------------------------------------------------------------------------------------------

    def _start_producers(self, number: int) -> None:
        kinds = {
            "serial-a": SerialProducer,
            "serial-b": SerialProducer,
            "window-a": PipelinedProducer,
            "window-b": PipelinedProducer,
            "bulk": BulkProducer,
        }
        seed = self._random.getrandbits(32)
        self._producers = [
            kind(self._book, self._faktory_port, tag=f"r{number}-{name}", pace=0.005, seed=seed)
            for name, kind in kinds.items()
        ]
        self._producers.append(HttpProducer(self._book, self._http_port, tag=f"r{number}-http", pace=0.01, seed=seed))
        for producer in self._producers:
            producer.start()

    def _faktory_port(self) -> int | None:
        return self._ports[0] if self._ports is not None else None

    def _http_port(self) -> int | None:
        return self._ports[1] if self._ports is not None else None

    def _stop_producers(self) -> None:
        for producer in self._producers:
            producer.stop()
        for producer in self._producers:
            producer.join(30)
            assert not producer.is_alive(), f"{producer.name} still waits for a reply"
        self._producers = []


def drive(kills: int, *, seed: int, per_round: int = 25, say: Callable[[str], None] = print) -> Tally:
    """A whole run in a directory of its own, which stays when something is wrong."""
    room = tempfile.TemporaryDirectory(prefix="ledger-", ignore_cleanup_errors=True)
    say(f"seed {seed}, {kills} kills, depth {DEPTH}, batches of {BATCH}, {ROUND_TRIP} ms round trip, {room.name}")
    try:
        tally = Driver(seed, Path(room.name), say).run(kills, per_round)
    except BaseException:
        room._finalizer.detach()  # type: ignore[attr-defined]
        print(f"The files of this run stay in {room.name}; seed {seed}", file=sys.stderr)
        raise
    room.cleanup()
    return tally
