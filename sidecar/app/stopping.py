"""The end: what asks for it, and how long acknowledged work may still go on."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import trio

from sidecar.config import Settings
from sidecar.errors import ACKNOWLEDGED_LOST
from sidecar.forwarder import Forwarder
from sidecar.forwarder.left import Left
from sidecar.intake import Intake
from sidecar.logs import get_logger
from sidecar.metrics import Counts
from sidecar.signals import INSISTING, name_of
from sidecar.upstream.link import Link

QUIET_FOR = 0.5
"""Seconds without anything owed after which the work is done."""
ALONE_FOR = 1.0
"""Seconds without a producer after which waiting for a dead link is of no use."""
LINK_DOWN_LIMIT = 5.0
"""Seconds that a drain goes on without a link while the journal holds what stays."""
RESERVED = 2.0
"""Seconds of the time for a drain that belong to its end, beside two round trips; half of the time at most."""
STEP = 0.05
TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes reads a container's last words."""

log = get_logger()


class Stop:
    """The wish that a sidecar ends.

    Attributes:
        asked: finish what was acknowledged, and end.
        insisted: end at once.
    """

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.insisted = trio.Event()

    async def by_signals(self, signals: AsyncIterable[int]) -> None:
        """Take each signal as the wish, and the second of those that insist as the end of all patience."""
        insisting = 0
        async for number in signals:
            if not self.asked.is_set():
                name = name_of(number)
                log.info("stopping", message=f"{name}: stopping", signal=number)
                self.asked.set()
            insisting += number in INSISTING
            if insisting > 1:
                self.insisted.set()

    async def by_failure(self, failed: trio.Event) -> None:
        """Take the failure of a part, without which nothing can be taken any more, as the wish."""
        await failed.wait()
        self.asked.set()


def failed_words() -> None:
    """Say that it ended by itself, and by what."""
    message = "Stopped by a defect in the journal (the log's record `defect` has the place): start the sidecar again"
    log.error("stopped_by_defect", message=message)


@dataclass(frozen=True, slots=True)
class Drain:
    """Finishes acknowledged work before the exit.

    First all goes on as ever, until nothing is owed. Where that doesn't come in time, or is of no use to wait for, no
    job is taken any more; then none is sent that could be left without a reply; then the replies are waited for.

    Args:
        stored: true where what stays is in the journal and leaves at the next start.
    """

    settings: Settings
    intake: Intake
    link: Link
    forwarder: Forwarder
    counts: Counts
    stored: bool

    async def run(self) -> None:
        """Return when nothing is owed any more, or when the time for that is over."""
        ends = trio.current_time() + self.settings.drain_timeout
        self.forwarder.hurry()
        self._announce()
        await self._serve_on(ends)
        self.intake.stop_taking()
        await _until(lambda: not self.intake.waiting or self._sending_ends(ends))
        self.forwarder.stop_sending()
        await _until(lambda: not (self.forwarder.in_flight or self.intake.uncommitted) or trio.current_time() >= ends)

    async def _serve_on(self, ends: float) -> None:
        """Until nothing was owed for a while, or the time to serve is over."""
        quiet_since = alone_since = trio.current_time()
        down_since = quiet_since if self._down else None
        while True:
            await trio.sleep(STEP)
            now = trio.current_time()
            if self.intake.waiting or self.counts.passing:
                quiet_since = now
            if self.counts.producers:
                alone_since = now
            down_since = (down_since or now) if self._down else None
            if now - quiet_since >= QUIET_FOR or now >= ends - self._reserved():
                return
            pointless = self.stored and down_since is not None
            if pointless and (now - alone_since >= ALONE_FOR or now - (down_since or now) >= LINK_DOWN_LIMIT):
                return

    def _reserved(self) -> float:
        """Seconds of the time that are for the end: two, and two round trips as long as batches take them now."""
        round_trip = max(self.link.round_trip, self.forwarder.reply_time)
        return min(RESERVED + 2 * round_trip, self.settings.drain_timeout / 2)

    def _sending_ends(self, ends: float) -> bool:
        return (self.stored and self._down) or trio.current_time() >= ends - self._reserved() / 2

    @property
    def _down(self) -> bool:
        return self.link.pipe is None

    def _announce(self) -> None:
        owed = self.intake.waiting
        if not owed:
            return
        how = "link down, up to 5 s" if self._down and self.stored else f"up to {self.settings.drain_timeout:g} s"
        last = "Ctrl-C again stops at once" + (" (nothing is lost)" if self.stored else "")
        log.info("draining", message=f"Draining {owed:,} jobs, {how}; {last}", jobs=owed)


async def _until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - it depends on many things and on the time
        await trio.sleep(STEP)


class Stay(NamedTuple):
    """What the journal holds at the end.

    Args:
        jobs: all of them.
        settled: those of them that Faktory has answered, and that could not be deleted.
        saved_in: where the journal was copied to, since its path named something else.
    """

    jobs: int = 0
    settled: int = 0
    saved_in: Path | None = None


def last_words(stay: Stay, left: Left) -> int:
    """Say what became of the jobs that were not settled.

    Args:
        stay: what the journal holds.
        left: what the forwarder had of them, and of those that were nowhere else.

    Returns:
        the process's exit code.
    """
    said = ["Stopped."]
    if left.gone:
        said.append(f"{left.gone:,} acknowledged jobs were only in memory and are lost.")
    if left.doubtful:
        said.append(
            f"{left.doubtful:,} were only in memory and are in doubt: sent without a reply, they may be in Faktory."
        )
    waiting = stay.jobs - stay.settled
    if waiting and stay.saved_in is not None:
        how = f"`faktory-sidecar journal send --journal-dir {stay.saved_in}` sends them"
        said.append(f"{waiting:,} jobs are in {stay.saved_in}, since the journal's path named something else: {how}.")
    elif waiting:
        said.append(f"{waiting:,} jobs stay in the journal and leave at the next start.")
    if left.stored_doubtful:
        said.append(f"{left.stored_doubtful:,} of them were sent without a reply, and may be in Faktory twice then.")
    if stay.settled:
        said.append(
            f"{stay.settled:,} that Faktory has answered could not be deleted from the journal, and are sent twice."
        )
    code = ACKNOWLEDGED_LOST if left.gone else 0
    if len(said) == 1:
        log.info("stopped", message="Stopped. No job is left behind.")
        return code
    message = " ".join(said)
    in_doubt = left.doubtful + left.stored_doubtful + stay.settled
    log.error("stopped", message=message, lost=left.gone, in_doubt=in_doubt, waiting=waiting)
    if TERMINATION_LOG.is_file():
        try:
            TERMINATION_LOG.write_text(message + "\n")
        except OSError as error:
            log.warning("termination_log", message=f"Kubernetes' termination log can't be written: {error}")
    return code
