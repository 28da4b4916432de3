"""Kills the sidecar at random, again and again, and then counts.

The real program, a real Faktory behind a delayed link, producers of all kinds that write down each acknowledged job
before they send the next. Besides `kill -9`, also while it starts and recovers: signals that drain, and the troubles of
`troubles.py` in turn. At the end of each round everything is let to arrive, and what was acknowledged is compared with
what Faktory was seen to store.
"""

from __future__ import annotations

import itertools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path

from tests.ledger.book import Book, duplicates, upstream_jobs
from tests.ledger.ear import Ear
from tests.ledger.producers import (
    AskingProducer,
    BulkProducer,
    BurstProducer,
    HttpProducer,
    LargeProducer,
    PipelinedProducer,
    Producer,
    SerialProducer,
)
from tests.ledger.troubles import REDIS_LIMIT, TROUBLES, Scene, Trouble
from tests.real.faktory_server import RealFaktory
from tests.real.raw_client import RawClient, ServerError
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Toxiproxy

DEPTH, BATCH = 8, 50
SETTLE_BUFFER = 1_000
ROUND_TRIP = 50  # milliseconds
LONGEST_LIFE = 0.6
"""Seconds from listening to the next event."""
LONGEST_START = 0.9
"""Seconds after the spawn within which a kill hits the start or the recovery."""
LONG_STALL = 1.2 * REDIS_LIMIT
KILL_IN_START, TERMINATE, TROUBLED, FLUSH = 0.2, 0.1, 0.5, 0.03
"""How often, of all cycles."""
OUTLASTS, ENDS, LONG = 0.4, 0.5, 0.2
"""How often a trouble goes on into the next life, ends within the life, is so long that Faktory gives up."""
LATEST_REPLY = 6.0
"""Seconds that the slowest reply of a round may take: the promised 4, and what a busy machine adds."""
DRAINING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
"""Signals that ask for a drain."""
ARRIVAL_LIMIT = 120.0
"""Seconds of the last drain of a round: all that was acknowledged must be upstream by then."""
PRODUCERS: dict[str, tuple[type[Producer], float]] = {
    "serial-a": (SerialProducer, 0.005),
    "serial-b": (SerialProducer, 0.005),
    "window-a": (PipelinedProducer, 0.01),
    "window-b": (PipelinedProducer, 0.01),
    "bulk": (BulkProducer, 0.01),
    "burst": (BurstProducer, 5.0),
    "large": (LargeProducer, 0.3),
    "asking": (AskingProducer, 0.1),
}
"""Those that speak Faktory's protocol, and the seconds between two pushes."""


@dataclass
class Tally:
    """What happened in a round.

    Attributes:
        stops: signals that drain.
        said: jobs that the sidecar itself has said to be in doubt.
        bound: the most that may be doubled.
    """

    kills: int = 0
    in_start: int = 0
    stops: int = 0
    troubles: int = 0
    flushes: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    refused: int = 0
    upstream: int = 0
    lost: int = 0
    duplicates: int = 0
    said: int = 0
    bound: int = 0

    def add(self, other: Tally) -> None:
        """Sum up."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def row(self, name: str) -> str:
        """A line of the table."""
        return f"{name:>5}" + "".join(f" {getattr(self, one.name):>{_width(one.name)},}" for one in fields(self))


def _width(name: str) -> int:
    return max(8, len(name))


HEADING = f"{'round':>5}" + "".join(f" {one.name.replace('_', ' '):>{_width(one.name)}}" for one in fields(Tally))


class Driver:
    """One run.

    Args:
        seed: of all that is random here; what the scheduler and the network do is not repeated with it.
        room: directory for the journal and the logs.
        without: names of troubles, and of signals, that are left out.
        say: prints a line.
    """

    def __init__(
        self, seed: int, room: Path, without: Collection[str] = (), say: Callable[[str], None] = print
    ) -> None:
        self._random = random.Random(seed)
        self._room = room
        self._say = say
        self._toxiproxy = Toxiproxy()
        self._server = RealFaktory()
        self._ear = Ear(self._server)
        self._book = Book()
        self._tally = Tally()
        self._ports: tuple[int, int] | None = None
        self._lives = itertools.count()
        self._process: SidecarProcess | None = None
        self._producers: list[Producer] = []
        self._draining = [one for one in DRAINING if one.name not in without]
        self._chosen = [trouble for name, trouble in TROUBLES.items() if name not in without]
        self._deck: list[Trouble] = []
        self._going_on: Trouble | None = None
        self._unheard = False
        """Whether nobody read the log in this round, so that not all that the process said was heard."""
        self.met: Counter[str] = Counter()

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
            self._ear.attach()
            link = self._toxiproxy.link(self._server.port, round_trip=ROUND_TRIP)
            journal = self._room / "journal"
            self._scene = Scene(self._server, link, self._alive, journal, self._random, self._ear)
            number = 0
            while total.kills < kills:
                number += 1
                self._tally = Tally()
                self._round(number, min(per_round, kills - total.kills))
                self._say(self._tally.row(str(number)))
                total.add(self._tally)
        finally:
            if self._process is not None and self._process.exit_code is None:
                self._process.kill()
            self._ports = None
            self._stop_producers()
            self._server.dispose()
            self._toxiproxy.stop()
        self._say(total.row("all"))
        self._say("troubles: " + ", ".join(f"{count} {name}" for name, count in sorted(self.met.items())))
        return total

    # a round -------------------------------------------------------------------------------------------------------

    def _round(self, number: int, kills: int) -> None:
        self._book = Book()
        self._unheard = False
        self._ear.forget()
        self._start_producers(number)
        while self._tally.kills < kills:
            self._cycle()
        self._let_all_arrive()

    def _cycle(self) -> None:
        """One life of the process."""
        dice = self._random
        process = self._spawn()
        if dice.random() < KILL_IN_START:
            time.sleep(dice.uniform(0.0, LONGEST_START))
            self._tally.in_start += 1
            self._kill(process)
            self._mend()
            return
        self._serve(process)
        time.sleep(dice.uniform(0.0, LONGEST_LIFE))
        self._meet_trouble()
        if dice.random() < FLUSH:
            self._flush(process)
        time.sleep(dice.uniform(0.0, LONGEST_LIFE / 2))
        if dice.random() < TERMINATE:
            self._mend(of_others=True)
            self._stop(process)
        else:
            self._kill(process)
        if self._going_on is not None and self._going_on.ours:
            self._going_on = None
        if dice.random() > OUTLASTS:
            self._mend()

    def _meet_trouble(self) -> None:
        """The next trouble of a shuffled deck, unless one goes on."""
        dice = self._random
        if self._going_on is not None or dice.random() > TROUBLED or not self._chosen:
            return
        if not self._deck:
            self._deck = dice.sample(self._chosen, len(self._chosen))
        trouble = self._going_on = self._deck.pop()
        self.met[trouble.name] += 1
        self._tally.troubles += 1
        self._tally.bound += trouble.lost_links * DEPTH * BATCH
        self._unheard = self._unheard or trouble.name == "log"
        trouble.begin(self._scene)
        time.sleep(dice.uniform(0.0, trouble.lasts))
        if trouble.ours and dice.random() < ENDS:
            self._mend()
            time.sleep(dice.uniform(0.0, trouble.lasts))
        if trouble.name == "stall" and dice.random() < LONG:
            time.sleep(LONG_STALL)
            self._tally.bound += 2 * DEPTH * BATCH  # Faktory gives up, and stores it all the same

    def _mend(self, *, of_others: bool = False) -> None:
        """End what goes on; with `of_others` a trouble of the process itself stays."""
        if self._going_on is not None and not (of_others and self._going_on.ours):
            self._going_on.mend(self._scene)
            self._going_on = None

    def _flush(self, process: SidecarProcess) -> None:
        """All jobs in Faktory are removed; they have been heard by then."""
        try:
            with RawClient(process.port, timeout=10.0) as client:
                client.call("FLUSH")
            self._tally.flushes += 1
        except (ServerError, OSError):
            pass  # it waits for jobs that can't arrive within its 4 s, or the connection ended: refused, not flushed

    def _let_all_arrive(self) -> None:
        """Stop producing, stop gracefully, and count."""
        self._mend()
        process = self._spawn(drain=ARRIVAL_LIMIT)
        self._serve(process)
        self._stop_producers()
        process.terminate()
        code = process.wait(ARRIVAL_LIMIT + 20)
        self._ports = None
        assert code == 0, f"exit code {code}\n{process.log_text()[-3000:]}"
        stopped = process.events("stopped")[0]["message"]
        assert stopped == "Stopped. No job is left behind.", stopped
        self._hear(process)
        self._count()
        assert not process.events("journal_damaged"), process.events("journal_damaged")
        self._server.flush()

    def _count(self) -> None:
        book, tally, arrived = self._book, self._tally, self._ear.heard()
        kept = upstream_jobs(self._server)
        assert kept <= arrived, f"stored and not heard: {list((kept - arrived).items())[:5]}"
        tally.acknowledged, tally.unanswered, tally.refused = (
            len(book.accepted),
            len(book.unanswered),
            len(book.refused),
        )
        tally.upstream = sum(arrived.values())
        tally.lost = len(book.accepted - arrived.keys())
        tally.duplicates = duplicates(arrived)
        tally.bound += tally.kills * (DEPTH * BATCH + SETTLE_BUFFER)
        false = book.false_replies(arrived)
        assert not false, f"{len(false)} false replies: {false[:5]}"
        assert book.slowest < LATEST_REPLY, f"a reply took {book.slowest:.1f} s"
        assert tally.duplicates <= tally.bound, tally
        assert tally.duplicates <= tally.said or self._unheard, tally

    # processes -----------------------------------------------------------------------------------------------------

    def _alive(self) -> SidecarProcess:
        assert self._process is not None
        return self._process

    def _spawn(self, *, drain: float | None = None) -> SidecarProcess:
        if drain is None:
            drain = self._random.choice((1, 5))
        settings = {
            "SIDECAR_UPSTREAM": self._server.url_at(self._scene.link.port),
            "SIDECAR_ACK": "disk",
            "SIDECAR_JOURNAL_DIR": str(self._scene.journal),
            "SIDECAR_PIPELINE_DEPTH": str(DEPTH),
            "BATCH_MAX_SIZE": str(BATCH),
            "BATCH_MAX_DELAY_MS": str(self._random.choice((0, 10, 50))),
            # Little memory makes the backlog live on the disk.
            "SIDECAR_MEMORY_MAX_BYTES": self._random.choice(("64MiB", "4MiB")),
            "SIDECAR_DRAIN_TIMEOUT_S": f"{drain:g}",
        }
        self._process = SidecarProcess(self._room / f"life{next(self._lives) % 4}", settings, piped=True)
        return self._process

    def _serve(self, process: SidecarProcess) -> None:
        process.wait_until_listening()
        self._ports = (process.port, process.http_port)

    def _kill(self, process: SidecarProcess) -> None:
        self._tally.kills += 1
        code = process.kill()
        self._ports = None
        assert code == -9, f"it had ended by itself with {code}:\n{process.log_text()[-3000:]}"
        self._hear(process)

    def _stop(self, process: SidecarProcess) -> None:
        self._tally.stops += 1
        how = self._random.choice(self._draining)
        process.process.send_signal(how)
        code = process.wait(90)
        self._ports = None
        assert code == 0, f"exit code {code} after {how.name}:\n{process.log_text()[-3000:]}"
        self._hear(process)

    def _hear(self, process: SidecarProcess) -> None:
        """Add up what the process has said to be in doubt."""
        self._tally.said += sum(int(record.get("in_doubt", 0)) for record in process.log())

    # producers -----------------------------------------------------------------------------------------------------

    def _start_producers(self, number: int) -> None:
        seed = self._random.getrandbits(32)
        self._producers = [
            kind(self._book, self._faktory_port, tag=f"r{number}-{name}", pace=pace, seed=seed)
            for name, (kind, pace) in PRODUCERS.items()
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


def drive(
    kills: int,
    *,
    seed: int,
    per_round: int = 25,
    without: Collection[str] = (),
    say: Callable[[str], None] = print,
) -> Tally:
    """A whole run in a directory of its own, which stays when something is wrong."""
    room = tempfile.TemporaryDirectory(prefix="ledger-", ignore_cleanup_errors=True)
    say(f"seed {seed}, {kills} kills, depth {DEPTH}, batches of {BATCH}, {ROUND_TRIP} ms round trip, {room.name}")
    try:
        tally = Driver(seed, Path(room.name), without, say).run(kills, per_round)
    except BaseException:
        room._finalizer.detach()  # type: ignore[attr-defined]
        print(f"The files of this run stay in {room.name}; seed {seed}", file=sys.stderr)
        raise
    room.cleanup()
    return tally
