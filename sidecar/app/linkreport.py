"""What the log says of the link: up, down, why, and what that means for jobs."""

from __future__ import annotations

import trio

from sidecar.config import Ack
from sidecar.forwarder import Forwarder
from sidecar.logs import FloodLog
from sidecar.metrics import Counts
from sidecar.upstream.link import Link

_MEANWHILE = {
    Ack.DISK: "accepting into the journal",
    Ack.MEMORY: "accepting into memory",
    Ack.UPSTREAM: "refusing jobs after 4 s",
}


class LinkReport:
    """Writes a record when the link comes up or goes down, and when it can't be made."""

    def __init__(self, link: Link, forwarder: Forwarder, counts: Counts, floods: FloodLog, mode: Ack) -> None:
        self._link = link
        self._forwarder = forwarder
        self._counts = counts
        self._floods = floods
        self._mode = mode
        self._in_doubt = 0

    def after_a_crash(self, waiting: int, *, at_most: int) -> None:
        """The last run was not stopped: some of the jobs that wait may be upstream already.

        Args:
            waiting: jobs in the journal.
            at_most: so many can have been sent without their deletion being committed.
        """
        doubt = min(waiting, at_most)
        if not doubt:
            return
        self._counts.in_doubt += doubt
        self._in_doubt = self._counts.in_doubt
        self._floods.warning(
            trio.current_time(),
            "crash_in_doubt",
            message=f"The last run ended without a stop: of {waiting:,} jobs in the journal up to {doubt:,} may be "
            "in Faktory already, and will be there twice",
            in_doubt=doubt,
            waiting=waiting,
        )

    def after_a_copy(self, waiting: int) -> None:
        """The journal is a copy of some time: all that waits in it may have been delivered since.

        Args:
            waiting: jobs in the journal.
        """
        if not waiting:
            return
        self._counts.in_doubt += waiting
        self._in_doubt = self._counts.in_doubt
        self._floods.warning(
            trio.current_time(),
            "copy_in_doubt",
            message=f"The journal is not the file that the last run closed, but a copy: if it is an older one, its "
            f"{waiting:,} jobs may be in Faktory already, and will be there twice",
            in_doubt=waiting,
            waiting=waiting,
        )

    def changed(self) -> None:
        """The link came up or went down; called after the forwarder has heard of it."""
        link, now = self._link, trio.current_time()
        if link.pipe is not None:
            trip = link.round_trip * 1000
            self._floods.info(
                now,
                "link_up",
                message=f"Link up: Faktory {link.version or 'of unknown version'}, {trip:.1f} ms",
                version=link.version,
                round_trip_ms=round(trip, 1),
            )
            return
        doubt, self._in_doubt = self._counts.in_doubt - self._in_doubt, self._counts.in_doubt
        self._floods.warning(
            now,
            "link_down",
            message=f"Link down ({link.down_reason}): {_MEANWHILE[self._mode]}, {doubt:,} in doubt, "
            f"retry in {max(1, round(link.retry_in))} s",
            reason=link.down_reason,
            in_doubt=doubt,
            waiting=self._forwarder.unsettled,
        )
