"""A worker for the jobs of docs/job-batching.md: Add, Subtract, Multiply, Divide.

    pip install pyfaktory
    FAKTORY_URL=tcp://localhost:7419 python deploy/examples/worker.py

Each job has one argument, an object with the numbers `a` and `b`; whatever else it holds (`request_id`) is shown beside
the result. A division by 0 fails the job, and Faktory will have it tried again. Ctrl-C or SIGTERM stops the worker.
"""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Callable, Mapping
from functools import partial

from pyfaktory import Client, Consumer

Operation = Callable[[float, float], float]

OPERATIONS: Mapping[str, Operation] = {
    "Add": operator.add,
    "Subtract": operator.sub,
    "Multiply": operator.mul,
    "Divide": operator.truediv,
}
CONCURRENCY = 4  # jobs at a time, each in a process of its own
BEAT_SECONDS = 15
GRACE_SECONDS = 5  # for jobs that run when the worker is stopped


def run(jobtype: str, jid: str, argument: Mapping[str, object]) -> float:
    """Do one job and show its result, one line a job.

    Raises:
        TypeError, ValueError: an operand is no number.
        ZeroDivisionError: a division by 0; the job fails and is tried again.
    """
    a, b = _number(argument["a"]), _number(argument["b"])
    result = OPERATIONS[jobtype](a, b)
    extra = {key: value for key, value in argument.items() if key not in ("a", "b")}
    line = f"{jobtype} {a:g} {b:g} = {result:g} jid={jid}" + "".join(f" {k}={v}" for k, v in extra.items())
    os.write(1, f"{line}\n".encode())  # one system call, so that lines of several processes don't mix
    return result


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def main() -> None:
    """Work until stopped."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    url = os.environ.get("FAKTORY_URL", "tcp://localhost:7419")
    with Client(faktory_url=url, role="consumer", beat_period=BEAT_SECONDS) as client:
        consumer = Consumer(client, queues=["default"], concurrency=CONCURRENCY, grace_period=GRACE_SECONDS)
        for jobtype in OPERATIONS:
            consumer.register(jobtype, partial(run, jobtype), bind=True)
        consumer.run()


if __name__ == "__main__":
    main()
