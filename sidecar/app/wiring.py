"""All parts of one sidecar, connected, and how they run.

The order of shutdown is the nesting of the nurseries: edges first, then what forwards, the journal last, so that a job
that an edge took finds everything below it still there.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from sidecar.app.linkreport import LinkReport
from sidecar.app.stopping import Drain
from sidecar.budget import POOL, Budget
from sidecar.clock import for_threads, running_clock
from sidecar.config import Ack, Settings
from sidecar.forwarder import Forwarder
from sidecar.forwarder.batching import Batcher, Limits
from sidecar.forwarder.settlement import SETTLE_BUFFER
from sidecar.intake import ANSWER_WITHIN, Deadlines, Intake
from sidecar.journal import Journal
from sidecar.logs import DEFECTS, FloodLog, FlushLog, defect, get_logger
from sidecar.memory import tidy
from sidecar.metrics import Counts
from sidecar.ops.facts import Gauge
from sidecar.ops.pulse import Pulse
from sidecar.producers.connection import Connection, Services
from sidecar.producers.express import Express
from sidecar.producers.riders import Desk
from sidecar.producers.shortcut import Shortcut
from sidecar.supervision import supervised
from sidecar.upstream.dial import Dialer
from sidecar.upstream.link import Link
from sidecar.upstream.side import SideConnection
from sidecar.upstream.tunnel import Tunnels

log = get_logger()


class Sidecar:
    """All parts of one sidecar, connected.

    Args:
        journal: open, or None where nothing is stored and nothing is left from before.
    """

    def __init__(self, settings: Settings, journal: Journal | None) -> None:
        self.settings = settings
        self.journal = journal
        self.counts = Counts()
        self.floods = FloodLog(log)
        self.flush_log = FlushLog(log)
        self.deadlines = Deadlines()
        self.dialer = Dialer(settings.upstream)
        self.mode = settings.mode
        # who waits for Faktory's word doesn't wait for company: what a turn of the event loop brings leaves together
        linger = 0.0 if self.mode is Ack.UPSTREAM else settings.batch_max_delay
        limits = Limits(settings.batch_max_size, settings.batch_max_bytes, linger)
        self.batcher = Batcher(limits)
        self.link = Link(self.dialer, self._link_changed)
        self.forwarder = Forwarder(
            self.batcher,
            self.link,
            journal,
            depth=settings.pipeline_depth,
            room=settings.memory_max_bytes // 4,
            counts=self.counts,
            flush_log=self.flush_log,
            floods=self.floods,
        )
        self.report = LinkReport(self.link, self.forwarder, self.counts, self.floods, self.mode)
        self.side = SideConnection(self.dialer)
        self.intake = Intake(
            self.forwarder,
            self.link,
            journal,
            self.deadlines,
            mode=self.mode,
            legacy=not settings.auto_batch,
            memory_max=settings.memory_max_bytes,
            counts=self.counts,
        )
        self.budget = Budget(lambda: self.intake.has_room_for_large() and self.side.unsent < POOL)
        self.connect: Callable[[], None] = lambda: None
        self.desk: Desk | None = None
        if journal is not None:
            self._take_over(journal)
            if self.mode is Ack.DISK:
                self.desk = Express(self.intake, journal, linger=linger)
        if self.mode is Ack.MEMORY:
            self.desk = Shortcut(self.intake)
        self.pulse = Pulse(self.counts, self.intake, self.forwarder, self.link)
        self.gauge = Gauge(
            settings,
            self.mode,
            self.intake,
            self.forwarder,
            self.batcher,
            self.link,
            journal,
            self.counts,
            self.pulse,
        )
        self.drain = Drain(settings, self.intake, self.link, self.forwarder, self.counts, stored=self.mode is Ack.DISK)

    def _take_over(self, journal: Journal) -> None:
        """Count what the journal does, and say what an earlier run's crash left in doubt."""
        journal.on_commit = self.counts.committed
        journal.use_clock(for_threads())
        if journal.recovery.unclean:
            at_most = self.settings.pipeline_depth * self.settings.batch_max_size + SETTLE_BUFFER
            at_most += journal.recovery.earlier
            self.report.after_a_crash(journal.waiting, at_most=at_most)
        elif journal.recovery.replaced:
            self.report.after_a_copy(journal.waiting)

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: Settings, journal: Journal | None) -> AsyncIterator[Sidecar]:
        """A sidecar whose parts run, but for the link, which `connect` starts; ended from the top down.

        Args:
            journal: open; closed at the end.
        """
        sidecar = cls(settings, journal)
        async with _storing(journal), trio.open_nursery() as forwarding:
            for name, part in sidecar._parts():
                forwarding.start_soon(supervised, name, part)
            sidecar.connect = partial(forwarding.start_soon, supervised, "link", sidecar.link.run)
            yield sidecar
            forwarding.cancel_scope.cancel()
        sidecar._end_logs()

    async def disconnect(self) -> None:
        """Send and take nothing more: what has no reply yet is in doubt."""
        await self.link.close()
        self.forwarder.link_changed()

    @property
    def failed(self) -> trio.Event:
        """Set when a part has failed for good, without which no job can be taken: the journal's thread."""
        return self.journal.failed if self.journal is not None else trio.Event()

    def _parts(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """What runs beneath the edges as long as the sidecar does, but for the link."""
        yield "deadlines", self.deadlines.run
        yield "forwarder", self.forwarder.run
        yield "intake", self.intake.run
        if self.desk is not None:
            yield "lent connections", self.desk.run
        yield "side connection", self.side.run
        yield "summaries", self._summarise
        yield "pulse", self.pulse.run
        if self.journal is not None:
            yield "audit", self.forwarder.audit(self.journal).run
        yield "memory", partial(tidy, lambda: self.batcher.jobs, lambda: self.budget.large)

    def services(self) -> Services:
        """What local connections work with."""
        password = self.settings.listen_password
        services = Services(
            intake=self.intake,
            side=self.side,
            deadlines=self.deadlines,
            counts=self.counts,
            floods=self.floods,
            password=password.reveal() if password is not None else None,
            desk=self.desk,
            tunnels=Tunnels(self.dialer),
            budget=self.budget,
        )
        if (clock := running_clock()) is not None:
            clock.frozen = partial(self._frozen, services.connections)
        return services

    def _frozen(self, connections: Collection[Connection], seconds: float) -> None:
        """The process has been frozen, or its event loop held up; nothing was read since."""
        if seconds < ANSWER_WITHIN:
            return
        late = sum([_too_late(connection) for connection in connections])
        log.warning(
            "frozen",
            message=f"Nothing ran here for {seconds:.1f} s (frozen, or out of processor time): {late:,} clients have "
            "waited for longer than clients do, their connections end without a reply",
            seconds=round(seconds, 1),
            connections=late,
        )

    def _link_changed(self) -> None:
        self.forwarder.link_changed()
        self.report.changed()

    async def _summarise(self) -> None:
        """Write the summaries of floods when their time has come."""
        while True:
            await trio.sleep(1.0)
            self.floods.tick(trio.current_time())
            DEFECTS.tick()

    def _end_logs(self) -> None:
        """Write what is still summed up."""
        self.flush_log.tick(math.inf)
        self.floods.tick(math.inf)
        DEFECTS.tick(math.inf)


def _too_late(connection: Connection) -> bool:
    try:
        return connection.too_late()
    except Exception as error:  # it would end the event loop
        defect("freeze", error, "a client that has waited may be answered late")
        return False


@asynccontextmanager
async def _storing(journal: Journal | None) -> AsyncIterator[None]:
    """Keep the journal's writer running around everything that uses it."""
    if journal is None:
        yield
        return
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        yield
        nursery.cancel_scope.cancel()


async def open_journal(settings: Settings) -> Journal:
    """The journal of these settings, opened in a thread.

    Raises:
        StartError: one line on what is wrong and what to do.
    """
    return await trio.to_thread.run_sync(
        lambda: Journal.open(
            settings.journal_dir,
            upstream=settings.upstream.identity,
            max_bytes=settings.journal_max_bytes,
            adopt=settings.adopt_journal,
        )
    )
