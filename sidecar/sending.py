"""Emptying a journal into upstream without serving: the lower half of a sidecar, until nothing waits."""

from __future__ import annotations

import trio

from sidecar.app import Sidecar
from sidecar.clock import RunningClock
from sidecar.config import Settings
from sidecar.errors import JOBS_LEFT, StartError
from sidecar.journal import Journal
from sidecar.journal.schema import DB_NAME
from sidecar.logs import get_logger
from sidecar.signals import INBOX
from sidecar.supervision import supervised

GIVE_UP_AFTER = 30.0
"""Seconds without a link after which what is left stays for another time."""
REPLIES_WITHIN = 5.0
"""Seconds in which Faktory answers a command, or never."""
STEP = 0.05

log = get_logger()


def send_journal(settings: Settings) -> int:
    """Sends all jobs of a directory that no sidecar owns, and settles them.

    Returns:
        the process's exit code: 0 nothing is left, 75 jobs or dead letters are.

    Raises:
        StartError: there is no journal, or another process owns it.
    """
    return trio.run(_send, settings, clock=RunningClock())


async def _send(settings: Settings) -> int:
    if not (settings.journal_dir / DB_NAME).exists():
        raise StartError(f"there is no journal in {settings.journal_dir}")
    journal = await trio.to_thread.run_sync(
        lambda: Journal.open(
            settings.journal_dir,
            upstream=settings.upstream.identity,
            max_bytes=settings.journal_max_bytes,
            adopt=settings.adopt_journal,
        )
    )
    sidecar = Sidecar(settings, journal)
    before, dead = journal.waiting, journal.dead
    log.info("sending", message=f"Sending {before:,} jobs to {settings.upstream.display}", jobs=before)
    async with trio.open_nursery() as storing:
        await storing.start(journal.run)
        async with trio.open_nursery() as forwarding:
            forwarding.start_soon(supervised, "deadlines", sidecar.deadlines.run)
            forwarding.start_soon(supervised, "forwarder", sidecar.forwarder.run)
            forwarding.start_soon(supervised, "link", sidecar.link.run)
            forwarding.start_soon(supervised, "audit", sidecar.forwarder.audit(journal).run)
            await _until_empty_or_pointless(sidecar, journal)
            await _finish(sidecar)
            forwarding.cancel_scope.cancel()
        storing.cancel_scope.cancel()
    sidecar.end_logs()
    left, letters = journal.waiting, journal.dead - dead
    say = log.error if left else log.info
    doubt = sidecar.forwarder.left().stored_doubtful
    message = f"{before - left:,} jobs left the journal, {letters:,} of them as dead letters; {left:,} stay"
    if doubt:
        message += f", {doubt:,} of them in doubt: sent without a reply, they may be in Faktory"
    say("sent", message=message)
    return JOBS_LEFT if left or journal.dead else 0


async def _finish(sidecar: Sidecar) -> None:
    """Send nothing more, and wait a moment for what is in flight, so that it isn't sent again."""
    sidecar.forwarder.stop_sending()
    with trio.move_on_after(REPLIES_WITHIN):
        while sidecar.forwarder.in_flight:  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(STEP)
    await sidecar.link.close()
    sidecar.forwarder.link_changed()


async def _until_empty_or_pointless(sidecar: Sidecar, journal: Journal) -> None:
    """Return when nothing waits, when the link has been down for long, or at SIGINT or SIGTERM."""
    async with trio.open_nursery() as nursery:

        async def asked() -> None:
            with INBOX.reading() as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(asked)
        up = trio.current_time()
        while journal.waiting and not journal.failed.is_set() and trio.current_time() - up < GIVE_UP_AFTER:
            if sidecar.link.pipe is not None:
                up = trio.current_time()
            await trio.sleep(STEP)
        nursery.cancel_scope.cancel()
