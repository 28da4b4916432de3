"""Wiring, start and stop.

The order of shutdown is the nesting of the nurseries: edges first, then what forwards, the journal last, so that a job
that an edge took finds everything below it still there.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from sidecar.banner import banner, reachable
from sidecar.budget import POOL, Budget
from sidecar.clock import for_threads, running_clock
from sidecar.config import Ack, Settings, host_port, listen_context
from sidecar.errors import StartError
from sidecar.forwarder import Forwarder
from sidecar.forwarder.batching import Batcher, Limits
from sidecar.forwarder.settlement import SETTLE_BUFFER
from sidecar.intake import ANSWER_WITHIN, Deadlines, Intake
from sidecar.journal import Journal
from sidecar.journal.schema import DB_NAME
from sidecar.linkreport import LinkReport
from sidecar.logs import DEFECTS, FloodLog, FlushLog, defect, get_logger
from sidecar.memory import calm_collector, give_back_large, tidy
from sidecar.metrics import Counts
from sidecar.ops.facts import Gauge
from sidecar.ops.pulse import Pulse
from sidecar.producers import Listener
from sidecar.producers.connection import Connection, Services
from sidecar.producers.express import Express
from sidecar.producers.riders import Lane
from sidecar.producers.shortcut import Shortcut
from sidecar.signals import INBOX
from sidecar.stopping import Drain, Stay, Stop, failed_words, last_words
from sidecar.supervision import supervised
from sidecar.tunnel import Tunnels
from sidecar.upstream.dial import Dialer
from sidecar.upstream.link import Link
from sidecar.upstream.side import SideConnection

if TYPE_CHECKING:
    from sidecar.web.ops import OpsRoutes

log = get_logger()


@dataclass(frozen=True, slots=True)
class Started:
    """What `serve` reports: the addresses that were bound, `127.0.0.1:7419`."""

    addresses: list[str]
    http_addresses: list[str]


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
        self.mode = settings.ack if settings.auto_batch else Ack.UPSTREAM
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
        self.lane: Lane | None = None
        if journal is not None:
            self._take_over(journal)
            if self.mode is Ack.DISK:
                self.lane = Express(self.intake, journal, linger=linger)
        if self.mode is Ack.MEMORY:
            self.lane = Shortcut(self.intake)
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

    @property
    def failed(self) -> trio.Event:
        """Set when a part has failed for good, without which no job can be taken: the journal's thread."""
        return self.journal.failed if self.journal is not None else trio.Event()

    def parts(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """What runs beneath the edges as long as the sidecar does, but for the link."""
        yield "deadlines", self.deadlines.run
        yield "forwarder", self.forwarder.run
        yield "intake", self.intake.run
        if self.lane is not None:
            yield "lent connections", self.lane.run
        yield "side connection", self.side.run
        yield "summaries", self.summarise
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
            lane=self.lane,
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

    async def summarise(self) -> None:
        """Write the summaries of floods when their time has come."""
        while True:
            await trio.sleep(1.0)
            self.floods.tick(trio.current_time())
            DEFECTS.tick()

    def end_logs(self) -> None:
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


async def serve(
    settings: Settings,
    *,
    stop: Stop | None = None,
    task_status: trio.TaskStatus[Started] = trio.TASK_STATUS_IGNORED,
) -> int:
    """Run a sidecar until it is asked to stop and has drained.

    Args:
        stop: asks for the end; without it signals do.

    Returns:
        the process's exit code.

    Raises:
        StartError: it can't start, with one clear line.
    """
    give_back_large()
    journal = await _open_journal(settings)
    sidecar = Sidecar(settings, journal)
    listener = Listener(settings.listen, sidecar.services(), tls=_listen_tls(settings))
    async with _stopping(stop, sidecar.failed) as stop, _storing(journal), trio.open_nursery() as forwarding:
        for name, part in sidecar.parts():
            forwarding.start_soon(supervised, name, part)
        async with trio.open_nursery() as edges:
            edges.start_soon(listener.run)
            http = await _start_http(sidecar, edges)
            _say(sidecar, listener.addresses, http)
            sidecar.gauge.started = True
            calm_collector()
            forwarding.start_soon(supervised, "link", sidecar.link.run)
            task_status.started(Started(listener.addresses, http))
            await stop.asked.wait()
            sidecar.gauge.draining = True
            await _drain(sidecar, stop)
            sidecar.pulse.stop()
            edges.cancel_scope.cancel()
        forwarding.cancel_scope.cancel()
    sidecar.end_logs()
    stay = Stay(journal.waiting, journal.unsettled, journal.saved_in) if journal is not None else Stay()
    code = last_words(stay, sidecar.forwarder.left())
    if sidecar.failed.is_set():
        failed_words()
        return code or 1
    return code


async def _drain(sidecar: Sidecar, stop: Stop) -> None:
    """Drain, as long as nobody insists on the end; then what has no reply yet is in doubt, and who waits is told."""
    async with trio.open_nursery() as nursery:

        async def insisted() -> None:
            await stop.insisted.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(insisted)
        await sidecar.drain.run()
        nursery.cancel_scope.cancel()
    sidecar.intake.stop_taking()
    await sidecar.link.close()
    sidecar.forwarder.link_changed()
    sidecar.deadlines.expire_all()


@asynccontextmanager
async def _stopping(stop: Stop | None, failed: trio.Event) -> AsyncIterator[Stop]:
    """What asks for the end: what is given, or else signals, and a failure without which nothing can be taken any more.

    The command of `run` is refused its jobs after such a failure, and ends by itself.
    """
    if stop is not None:
        yield stop
        return
    stop = Stop()
    with INBOX.reading() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.by_signals, signals)
            nursery.start_soon(stop.by_failure, failed)
            yield stop
            nursery.cancel_scope.cancel()


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


async def _open_journal(settings: Settings) -> Journal | None:
    """The journal, where this mode stores jobs or an earlier one has left some."""
    mode = settings.ack if settings.auto_batch else Ack.UPSTREAM
    if mode is not Ack.DISK and not (settings.journal_dir / DB_NAME).exists():
        return None
    return await trio.to_thread.run_sync(
        lambda: Journal.open(
            settings.journal_dir,
            upstream=settings.upstream.identity,
            max_bytes=settings.journal_max_bytes,
            adopt=settings.adopt_journal,
        )
    )


async def _start_http(sidecar: Sidecar, nursery: trio.Nursery) -> list[str]:
    """Start the HTTP edge and the operator's one where they are on; returns what was bound for the first."""
    settings = sidecar.settings
    if not (settings.http_listen or settings.ops_listen):
        return []
    from sidecar.web.ops import HEALTH, OpsRoutes  # slow to import, and not needed where HTTP is off

    routes = OpsRoutes(sidecar.gauge)
    if settings.ops_listen:
        await _start_ops(routes, sidecar, nursery)
    if not settings.http_listen:
        return []
    from sidecar.web.app import serve_http
    from sidecar.web.ops_router import router

    bound: list[tuple[str, int]] = await nursery.start(
        partial(serve_http, settings, sidecar.intake, sidecar.budget, routers=[router(routes)], open_paths=HEALTH)
    )
    return [host_port(*each) for each in bound]


async def _start_ops(routes: OpsRoutes, sidecar: Sidecar, nursery: trio.Nursery) -> None:
    """Start the listener that has nothing but health, metrics and status."""
    from sidecar.web.ops import OpsApplication
    from sidecar.web.server import bind
    from sidecar.web.server import serve as serve_web

    application = OpsApplication(routes, sidecar.budget)
    listeners = bind(sidecar.settings.ops_listen, application.edge, setting="SIDECAR_OPS_LISTEN")
    bound: list[tuple[str, int]] = await nursery.start(serve_web, listeners)
    address = reachable(host_port(*bound[0]))
    log.info("ops", message=f"Health, metrics and status page: http://{address}", address=address)


def _listen_tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.listen_tls_cert is None:
        return None
    try:
        return listen_context(settings.listen_tls_cert, settings.listen_tls_key)
    except ValueError as error:
        raise StartError(f"SIDECAR_LISTEN_TLS_CERT: {error}", exit_code=2) from error


def _say(sidecar: Sidecar, addresses: list[str], http_addresses: list[str]) -> None:
    """The start's records, in the words of the guide where it has them."""
    waiting = sidecar.journal.waiting if sidecar.journal is not None else 0
    for address in addresses:
        log.debug("listening", message=f"Listening on {address}", address=address)
    for line in banner(sidecar.settings, addresses=addresses, http_addresses=http_addresses, waiting=waiting):
        (log.warning if line.level == "warning" else log.info)(line.event, message=line.message)
    log.info("flusher_started", message="Started batch flusher background task")
