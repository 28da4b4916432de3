"""What is counted. Hot paths add to plain integers; `/metrics` and the status page read them.

Units: jobs, bytes, seconds. Everything counts from the start of the process.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Plain counters, one writer (the event loop), many readers.

    Attributes:
        taken: jobs acknowledged or given to the link, by (edge, lane).
        refused: commands and jobs answered with an error of ours, by reason.
        delivered: jobs that upstream accepted.
        rejected: jobs that upstream refused for good; `dead` those of them that were acknowledged before.
        in_doubt: jobs sent, whose link was lost before the reply.
        resent: jobs sent again for whatever reason.
        batches: commands with jobs that were sent.
        producers, consumers: local connections now (levels).
        passing: passed-through commands without a reply now (a level), but for FETCHes.
    """

    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    delivered: int = 0
    rejected: int = 0
    dead: int = 0
    in_doubt: int = 0
    resent: int = 0
    batches: int = 0
    producers: int = 0
    consumers: int = 0
    passing: int = 0

    def take(self, edge: str, lane: str, jobs: int) -> None:
        """Count jobs that an edge took (`fwp`, `http`) into a lane (`coalesced`, `confirmed`, `passed`)."""
        key = (edge, lane)
        self.taken[key] = self.taken.get(key, 0) + jobs

    def refuse(self, reason: str, jobs: int = 1) -> None:
        """Count a refusal of ours by a stable reason (`journal_full`, `upstream_down`, `line_too_long`)."""
        self.refused[reason] = self.refused.get(reason, 0) + jobs
