"""Many `PUSH` lines at once, where they are nothing but certain jobs."""

from __future__ import annotations

from sidecar.protocol.jobs import Job, examine, stamp

STAMP_STEP = 2e-6
"""Seconds between the stamps of jobs that arrived together: Faktory keeps scheduled jobs that are equal to the last
byte only once, and stamps each PUSH anew. With one microsecond rounding would make some of them equal."""


def plain_pushes(data: bytes, clock: float) -> list[Job] | None:
    """The jobs of some whole `PUSH` lines, all certain to be accepted and none confirmed; None: there is more to it.

    Args:
        data: what a client has sent.
        clock: when, in unix seconds.
    """
    if data[-1:] != b"\n":
        return None
    jobs: list[Job] = []
    for index, line in enumerate(data[:-1].split(b"\n")):
        if not line.startswith(b"PUSH "):
            return None
        payload = line[5:-1] if line.endswith(b"\r") else line[5:]
        job = examine(payload, stamp(clock + index * STAMP_STEP))
        if job is None or job.confirmed:
            return None
        jobs.append(job)
    return jobs
