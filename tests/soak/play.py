"""A whole soak in a directory of its own, which stays when something is wrong."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from tests.soak.stage import MEMORY, ROOM, ROUND_TRIP, Stage
from tests.soak.verdict import REPLY_LIMIT, Verdict, judge

WARM = 600.0
"""Seconds that the last process has until its memory must be flat, or a third of a shorter soak."""


def soak(
    seconds: float,
    seed: int,
    *,
    without: Collection[str] = (),
    reply_limit: float = REPLY_LIMIT,
    say: Callable[[str], None] = print,
) -> Verdict:
    """Play, and judge.

    Args:
        without: names of troubles and attacks that are left out.
        reply_limit: seconds of an honest client's slowest reply beside attacks alone.
        say: prints a line.
    """
    room = tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True)
    say(f"seed {seed}, {seconds / 60:g} minutes, {ROUND_TRIP} ms round trip, {room.name}")
    verdict: Verdict | None = None
    try:
        stage = Stage(seconds, seed, Path(room.name), without=without, say=say)
        found = stage.run()
        verdict = judge(
            found,
            stage.honest,
            most_rss=MEMORY + ROOM,
            warm_after=stage.restarts_until + min(WARM, seconds / 3),
            reply_limit=reply_limit,
        )
        for line in verdict.lines:
            say(line)
        troubles = Counter(span.name for span in found.spans)
        say("troubles: " + ", ".join(f"{count} {name}" for name, count in sorted(troubles.items())))
        say("attacks: " + ", ".join(f"{count} {name}" for name, count in sorted(found.attacks.items())))
    finally:
        if verdict is None or verdict.missed:
            room._finalizer.detach()  # type: ignore[attr-defined]
            print(f"The files of this run stay in {room.name}; seed {seed}", file=sys.stderr)
    if not verdict.missed:
        room.cleanup()
    return verdict
