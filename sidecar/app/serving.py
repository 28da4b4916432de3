"""Serving: the edges around a running sidecar, from the start to the last words."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from sidecar.app.banner import banner, reachable
from sidecar.app.stopping import Stay, Stop, failed_words, last_words
from sidecar.config import Ack, Settings, host_port, listen_context
from sidecar.errors import StartError
from sidecar.journal.schema import DB_NAME
from sidecar.logs import get_logger
from sidecar.memory import calm_collector, give_back_large
from sidecar.producers import Listener
from sidecar.signals import INBOX

if TYPE_CHECKING:
    from sidecar.web.ops import OpsRoutes

from sidecar.app.wiring import Sidecar, open_journal

log = get_logger()


@dataclass(frozen=True, slots=True)
class Started:
    """What `serve` reports: the addresses that were bound, `127.0.0.1:7419`."""

    addresses: list[str]
    http_addresses: list[str]


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
    stores = settings.mode is Ack.DISK or (settings.journal_dir / DB_NAME).exists()  # or an earlier mode has left some
    journal = await open_journal(settings) if stores else None
    by_signals = stop is None
    async with _stopping(stop) as stop, Sidecar.running(settings, journal) as sidecar:
        listener = Listener(settings.listen, sidecar.services(), tls=_listen_tls(settings))
        async with trio.open_nursery() as edges:
            edges.start_soon(listener.run)
            if by_signals:  # the command of `run` is refused its jobs after such a failure, and ends by itself
                edges.start_soon(stop.by_failure, sidecar.failed)
            http = await _start_http(sidecar, edges)
            _say(sidecar, listener.addresses, http)
            sidecar.gauge.started = True
            calm_collector()
            sidecar.connect()
            task_status.started(Started(listener.addresses, http))
            await stop.asked.wait()
            sidecar.gauge.draining = True
            await _drain(sidecar, stop)
            sidecar.pulse.stop()
            edges.cancel_scope.cancel()
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
    await sidecar.disconnect()
    sidecar.deadlines.expire_all()


@asynccontextmanager
async def _stopping(stop: Stop | None) -> AsyncIterator[Stop]:
    """What asks for the end: what is given, or else signals."""
    if stop is not None:
        yield stop
        return
    stop = Stop()
    with INBOX.reading() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop.by_signals, signals)
            yield stop
            nursery.cancel_scope.cancel()


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
