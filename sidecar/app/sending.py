"""Emptying a journal into upstream without serving: the lower half of a sidecar, until nothing waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import trio

from sidecar.app.stopping import LINK_DOWN_LIMIT
from sidecar.app.wiring import Sidecar, open_journal
from sidecar.clock import RunningClock
from sidecar.config import Settings
from sidecar.errors import JOBS_LEFT, StartError
from sidecar.journal import Journal
from sidecar.journal.probe import look
from sidecar.journal.schema import DB_NAME
from sidecar.journal.slots import claimed, discard_empty, left_slots, said_of_saved
from sidecar.logs import get_logger
from sidecar.signals import INBOX
from sidecar.supervision import supervised

GIVE_UP_AFTER = 30.0
"""Seconds without a link after which what is left stays for another time."""
REPLIES_WITHIN = 5.0
"""Seconds in which Faktory answers a command, or never."""
LOOK_AGAIN = 60.0
"""Seconds between two looks for what `run`s have left."""
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
    journal = await _emptied(settings, asked=None)
    return JOBS_LEFT if journal.waiting or journal.dead else 0


async def beside_left_slots(settings: Settings, serving: Callable[[], Awaitable[int]], *, patience: float = 0.0) -> int:
    """Serve, and meanwhile send what earlier `run`s left in directories beside ours.

    Args:
        patience: seconds that this may go on for after the serving has ended.

    Returns:
        what the serving does.
    """
    enough, looked = trio.Event(), trio.Event()
    said: dict[Path, str] = {}

    async def send() -> None:
        while not enough.is_set():
            await _send_left_slots(settings, enough, said)
            looked.set()
            with trio.move_on_after(LOOK_AGAIN):
                await enough.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervised, "left journals", send)
        code = await serving()
        with trio.move_on_after(patience):
            await looked.wait()
        enough.set()
    return code


async def _send_left_slots(settings: Settings, enough: trio.Event, said: dict[Path, str]) -> None:
    """One directory after the other, each as its owner; what stays in one is said when it is something new."""
    for slot in left_slots(settings.journal_dir):
        stays = None
        try:
            with claimed(slot) as ours:
                if not ours or enough.is_set():
                    continue
                if look(slot).to_send:
                    await _emptied(replace(settings, journal_dir=slot), asked=enough)
                text = look(slot).left(slot, settings.upstream.identity)
                stays = text and f"{slot.name}: {text}"
                discard_empty(slot)
        except FileNotFoundError:
            continue  # who had it has deleted it
        except (StartError, OSError) as error:
            stays = f"What an earlier run left can't be sent: {error}"
        if stays is not None and said.get(slot) != stays:
            log.warning("left_journal", message=stays)
        said[slot] = stays or ""
    for copy, text in said_of_saved(settings.journal_dir).items():
        if said.get(copy) != text:
            log.warning("saved_journal", message=f"{copy}: {text}")
        said[copy] = text


async def _emptied(settings: Settings, *, asked: trio.Event | None) -> Journal:
    """Send what a journal holds, as long as that is of use; the journal, closed."""
    journal = await open_journal(settings)
    before, dead = journal.waiting, journal.dead
    what = f"Sending {before:,} jobs from {settings.journal_dir} to {settings.upstream.display}"
    log.info("sending", message=what, jobs=before)
    async with Sidecar.running(settings, journal) as sidecar:
        sidecar.connect()
        await _until_empty_or_pointless(sidecar, journal, asked)
        await _finish(sidecar)
    left, letters = journal.waiting, journal.dead - dead
    say = log.error if left else log.info
    doubt = sidecar.forwarder.left().stored_doubtful
    message = f"{before - left:,} jobs left the journal, {letters:,} of them as dead letters; {left:,} stay"
    if doubt:
        message += f", {doubt:,} of them in doubt: sent without a reply, they may be in Faktory"
    say("sent", message=message)
    return journal


async def _finish(sidecar: Sidecar) -> None:
    """Send nothing more, and wait a moment for what is in flight, so that it isn't sent again."""
    sidecar.forwarder.stop_sending()
    with trio.move_on_after(REPLIES_WITHIN):
        while sidecar.forwarder.in_flight:  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(STEP)
    await sidecar.disconnect()


async def _until_empty_or_pointless(sidecar: Sidecar, journal: Journal, asked: trio.Event | None) -> None:
    """Return when nothing waits, when the link has been down for long, or when it is asked to, by signals for one."""
    patience = GIVE_UP_AFTER if asked is None else LINK_DOWN_LIMIT
    async with trio.open_nursery() as nursery:

        async def until_asked() -> None:
            if asked is not None:
                await asked.wait()
            else:
                with INBOX.reading() as signals:
                    await anext(signals)
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_asked)
        sidecar.forwarder.hurry()
        up = trio.current_time()
        while (
            journal.waiting > sidecar.forwarder.resting
            and not journal.failed.is_set()
            and trio.current_time() - up < patience
        ):
            if sidecar.link.pipe is not None:
                up = trio.current_time()
            await trio.sleep(STEP)
        nursery.cancel_scope.cancel()
