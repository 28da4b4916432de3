"""The end: what asks for it, and how long acknowledged work may still go on."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from sidecar.config import Settings
from sidecar.intake import Intake
from sidecar.logs import get_logger
from sidecar.metrics import Counts
from sidecar.upstream.link import Link

QUIET_FOR = 0.5
"""Seconds without anything owed after which the work is done."""
ALONE_FOR = 1.0
"""Seconds without a producer after which waiting for a dead link is of no use."""
LINK_DOWN_LIMIT = 5.0
"""Seconds that a drain goes on without a link while the journal holds what stays."""
STEP = 0.05
TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes reads a container's last words."""

log = get_logger()


async def asked_to_stop(stop: trio.Event | None, signals: AsyncIterator[int]) -> None:
    """Return when the caller's event is set or, without one, when a signal comes."""
    if stop is not None:
        await stop.wait()
        return
    async for number in signals:
        log.info("stopping", message=f"{signal.Signals(number).name}: stopping", signal=number)
        return


async def asked_or_failed(stop: trio.Event | None, signals: AsyncIterator[int], failed: trio.Event) -> None:
    """As `asked_to_stop`, and when a part has failed without which nothing can be taken any more.

    With a caller's event only that counts: the command of `run` is refused its jobs and ends by itself.
    """
    async with trio.open_nursery() as nursery:

        async def wait_for_failure() -> None:
            await failed.wait()
            if stop is None:
                nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_failure)
        await asked_to_stop(stop, signals)
        nursery.cancel_scope.cancel()


def failed_words() -> None:
    """Say that it ended by itself, and by what."""
    message = "Stopped by a defect in the journal (the log's record `defect` has the place): start the sidecar again"
    log.error("stopped_by_defect", message=message)


@dataclass(frozen=True, slots=True)
class Drain:
    """Finishes acknowledged work before the exit.

    Args:
        hurry: called once: no job lingers from now on.
        stored: true where what stays is in the journal and leaves at the next start.
    """

    settings: Settings
    intake: Intake
    link: Link
    counts: Counts
    hurry: Callable[[], None]
    stored: bool

    async def run(self) -> None:
        """Return when nothing is owed any more, or when the time for that is over."""
        started = trio.current_time()
        self.hurry()
        self._announce()
        quiet_since = alone_since = started
        down_since = started if self._down else None
        while True:
            await trio.sleep(STEP)
            now = trio.current_time()
            if self.intake.owed or self.counts.passing:
                quiet_since = now
            if self.counts.producers:
                alone_since = now
            down_since = (down_since or now) if self._down else None
            if now - quiet_since >= QUIET_FOR or now - started >= self.settings.drain_timeout:
                return
            pointless = self.stored and down_since is not None
            if pointless and (now - alone_since >= ALONE_FOR or now - (down_since or now) >= LINK_DOWN_LIMIT):
                return

    @property
    def _down(self) -> bool:
        return self.link.pipe is None

    def _announce(self) -> None:
        owed = self.intake.owed
        if not owed:
            return
        how = "link down, up to 5 s" if self._down and self.stored else f"up to {self.settings.drain_timeout:g} s"
        last = "Ctrl-C again stops at once" + (" (nothing is lost)" if self.stored else "")
        log.info("draining", message=f"Draining {owed:,} jobs, {how}; {last}", jobs=owed)


def last_words(waiting: int, lost: int) -> None:
    """Say how many jobs stay.

    Args:
        waiting: that stay in the journal.
        lost: that were acknowledged and only in memory.
    """
    said = ["Stopped."]
    if lost:
        said.append(f"{lost:,} acknowledged jobs were only in memory and are lost.")
    if waiting:
        said.append(f"{waiting:,} jobs stay in the journal and leave at the next start.")
    if not (lost or waiting):
        log.info("stopped", message="Stopped. No job is left behind.")
        return
    message = " ".join(said)
    log.error("stopped", message=message, lost=lost, waiting=waiting)
    if TERMINATION_LOG.is_file():
        try:
            TERMINATION_LOG.write_text(message + "\n")
        except OSError as error:
            log.warning("termination_log", message=f"Kubernetes' termination log can't be written: {error}")
