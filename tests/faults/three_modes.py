"""Three sidecars, one for each meaning of `+OK`, on one bad link to one Faktory, with producers of all kinds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.conftest import SidecarFactory
from tests.ledger.book import Book, duplicates, upstream_jobs, wait_until
from tests.ledger.producers import BulkProducer, PipelinedProducer, Producer, SerialProducer
from tests.real.faktory_server import RealFaktory
from tests.real.sidecar_command import SidecarProcess

MODES = ("disk", "memory", "upstream")
DEPTH, BATCH = 4, 20
SETTINGS = {
    "SIDECAR_HTTP_LISTEN": "off",
    "SIDECAR_PIPELINE_DEPTH": str(DEPTH),
    "BATCH_MAX_SIZE": str(BATCH),
    "BATCH_MAX_DELAY_MS": "20",
}
REPLY_LIMIT = 5.0
"""Seconds after which clients give up: every reply must have come by then, whatever happens to the link."""
PACE = 0.02


@dataclass
class Side:
    """One sidecar, and what its producers were told."""

    mode: str
    process: SidecarProcess
    book: Book = field(default_factory=Book)
    producers: list[Producer] = field(default_factory=list)

    def start_producers(self) -> None:
        """One of each kind."""
        kinds = (SerialProducer, PipelinedProducer, BulkProducer)
        for kind in kinds:
            tag = f"{self.mode}-{kind.__name__.removesuffix('Producer').lower()}"
            self.producers.append(kind(self.book, lambda: self.process.port, tag=tag, pace=PACE))
        for producer in self.producers:
            producer.start()

    def stop_producers(self) -> None:
        """Stop them and wait for the replies that they are owed."""
        for producer in self.producers:
            producer.stop()
        for producer in self.producers:
            producer.join(40)
            assert not producer.is_alive(), f"{producer.name} still waits for a reply"

    @property
    def losses(self) -> list[int]:
        """Jobs in doubt at each loss of the link, as the log has them; told at least as often as some were."""
        records = [record for record in self.process.events("link_down") if record.get("in_doubt")]
        return [int(record["in_doubt"]) for record in records]


class Bench:
    """What a test of a fault works with.

    Args:
        server: the Faktory at the other end.
        sides: the three sidecars.
    """

    def __init__(self, server: RealFaktory, sides: list[Side]) -> None:
        self.server = server
        self.sides = sides

    def pushes(self, count: int = 30) -> None:
        """Wait until every sidecar has accepted so many jobs more: the link works."""
        before = [len(side.book.accepted) for side in self.sides]

        def more() -> bool:
            return all(len(side.book.accepted) >= start + count for side, start in zip(self.sides, before, strict=True))

        wait_until(more, f"{count} more jobs accepted in each mode", timeout=40)

    def link_noticed(self, timeout: float = 25.0) -> None:
        """Wait until every sidecar has seen that its link is gone."""
        wait_until(
            lambda: all(side.process.events("link_down") for side in self.sides),
            "the link is seen down",
            timeout=timeout,
        )

    def verify(self, *, refusals: str = "", timed_out: bool = False) -> Counter[str]:
        """After the fault: all that was acknowledged arrives, and nothing false was said.

        Args:
            refusals: a pattern that some refusal in `upstream` mode must match; empty: there need be none.
            timed_out: Faktory itself ran into its time limit: what it then did with a job, nobody knows.

        Returns:
            what is upstream.
        """
        for side in self.sides:
            side.stop_producers()
        accepted = set().union(*(side.book.accepted for side in self.sides))
        assert all(len(side.book.accepted) > 50 for side in self.sides), "the test pushes next to nothing"
        wait_until(
            lambda: accepted <= upstream_jobs(self.server).keys(), "all that was acknowledged arrives", timeout=40
        )
        for side in self.sides:
            side.process.terminate()
            assert side.process.wait() == 0
            assert side.process.events("stopped")[0]["message"] == "Stopped. No job is left behind."
        upstream = upstream_jobs(self.server)
        for side in self.sides:
            self._verify_side(side, upstream, timed_out=timed_out)
        told = "\n".join(self.sides[-1].book.refused.values())
        assert re.search(refusals, told), f"nothing like {refusals!r} was told"
        return upstream

    def _verify_side(self, side: Side, upstream: Counter[str], *, timed_out: bool) -> None:
        mine = Counter({jid: count for jid, count in upstream.items() if jid.startswith(f"{side.mode}-")})
        wrong = side.book.false_replies(mine)
        assert not wrong, f"{side.mode}: {len(wrong)} false replies: {wrong[:3]}"
        assert side.book.slowest < REPLY_LIMIT, f"{side.mode}: a reply took {side.book.slowest:.1f} s"
        assert not side.book.unanswered, f"{side.mode}: producers were cut off: {len(side.book.unanswered)} jobs"
        if side.mode != "upstream":
            assert not side.book.refused, f"{side.mode}: {set(side.book.refused.values())}"
        assert all(loss <= DEPTH * BATCH for loss in side.losses), side.losses
        assert duplicates(mine) <= sum(side.losses) or timed_out, f"{side.mode}: {duplicates(mine)} > {side.losses}"


@contextmanager
def three_sidecars(server: RealFaktory, port: int, start: SidecarFactory, *, pushing: bool = True) -> Iterator[Bench]:
    """One sidecar for each mode, with producers.

    Args:
        port: of the link to the server.
        pushing: start the producers.
    """
    sides = [Side(mode, start(server.url_at(port), SETTINGS | {"SIDECAR_ACK": mode})) for mode in MODES]
    try:
        if pushing:
            for side in sides:
                side.start_producers()
        yield Bench(server, sides)
    finally:
        for side in sides:
            for producer in side.producers:
                producer.stop()
