"""A producer for the worker beside it: Add jobs, one PUSH each, as an application would send them.

    pip install pyfaktory
    FAKTORY_URL=tcp://localhost:7419 python deploy/examples/producer.py --jobs 100

It knows nothing of a sidecar: FAKTORY_URL says where Faktory is. Each acknowledged job is one line, `acknowledged JID`.
An error is shown, and the same job (the same jid) tried again a second later. Ctrl-C or SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator

from pyfaktory import Client, Job, Producer

RETRY_SECONDS = 1.0


def jobs(count: int) -> Iterator[Job]:
    """Sums to compute, `count` of them; without end when it is 0."""
    number = 0
    while count == 0 or number < count:
        number += 1
        yield Job(jobtype="Add", args=[{"a": number, "b": number, "request_id": f"{os.getpid()}-{number}"}])


def produce(count: int, rate: float, stop: threading.Event) -> int:
    """Push jobs until all are acknowledged or `stop` is set.

    Args:
        count: jobs, 0 for no end.
        rate: jobs a second, 0 for as fast as they are acknowledged.

    Returns:
        how many were acknowledged.
    """
    acknowledged = 0
    waiting = jobs(count)
    job = next(waiting, None)
    while job is not None and not stop.is_set():
        try:
            with Client(faktory_url=os.environ.get("FAKTORY_URL", "tcp://localhost:7419"), role="producer") as client:
                producer = Producer(client)
                while job is not None and not stop.is_set():
                    producer.push(job)
                    acknowledged += 1
                    print(f"acknowledged {job.jid}", flush=True)
                    job = next(waiting, None)
                    if rate:
                        stop.wait(1 / rate)
        except Exception as error:  # pyfaktory has no base class for its errors; refused, lost, timed out: try again
            print(f"not acknowledged: {error!r}", file=sys.stderr, flush=True)
            stop.wait(RETRY_SECONDS)
    return acknowledged


def main() -> None:
    """Push until done or stopped."""
    parser = argparse.ArgumentParser(description="Push Add jobs to the Faktory that FAKTORY_URL names.")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="how many, 0 for no end (default)")
    parser.add_argument("--rate", type=float, default=10, metavar="R", help="jobs a second, 0: no limit (default 10)")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(f"{produce(arguments.jobs, arguments.rate, stop)} jobs acknowledged", flush=True)


if __name__ == "__main__":
    main()
