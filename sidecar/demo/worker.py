"""A pyfaktory worker with the guide's four kinds of jobs. A process of its own.

It is pyfaktory's `Consumer` with two changes: handlers run on a thread instead of a pool of processes, which would take
longer to start than all of these sums, and it stops by itself when its jobs are done.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from typing import Any

from pebble import ThreadPool
from pyfaktory import Client, Consumer

from sidecar.demo.orders import JOB_TYPES, JobType, Order, Ran, Reporter, compute, read_order

GIVE_UP = 2  # FETCHes in a row that brought nothing, 2 s each
CONCURRENCY = 1000  # jobs fetched and not acknowledged; pyfaktory sleeps when it has so many


class CountingClient(Client):  # type: ignore[misc]  # pyfaktory has no types
    """Notes when Faktory had each job, and fetches no more than there should be."""

    def __init__(self, order: Order) -> None:
        super().__init__(faktory_url=order.url, role="consumer", worker_id=order.wid)
        self.order = order
        self.enqueued: dict[str, str] = {}
        self.acknowledged = threading.Semaphore(0)
        self.left = 0
        self._fetched = 0
        self._nothing = 0

    def _fetch(self, queues: list[str]) -> dict[str, Any] | None:
        if self._fetched == self.order.jobs or self._nothing == GIVE_UP:
            self._check_the_rest()
        job: dict[str, Any] | None = super()._fetch(queues)
        if job is None:
            self._nothing += 1
            return None
        self._nothing = 0
        self._fetched += 1
        self.enqueued[job["jid"]] = job["enqueued_at"]
        return job

    def _check_the_rest(self) -> None:
        """Waits for the last ACKs; when the queue is empty then, ends the worker as a deployment would."""
        for _ in range(self._fetched):
            self.acknowledged.acquire()
        for _ in range(self._fetched):
            self.acknowledged.release()
        self.left = self.info()["faktory"]["queues"].get(self.order.queue, 0)
        if self.left == 0 or self._nothing == GIVE_UP:
            signal.raise_signal(signal.SIGTERM)


class CountingConsumer(Consumer):  # type: ignore[misc]  # pyfaktory has no types
    """Reports each job after its ACK."""

    def __init__(self, client: CountingClient, reporter: Reporter) -> None:
        super().__init__(client, queues=[client.order.queue], concurrency=CONCURRENCY)
        self.pool = ThreadPool(max_workers=1)
        self.results: list[tuple[str, float]] = []
        self._reporter = reporter
        for kind in JOB_TYPES:
            self.register(kind, functools.partial(self._run, kind), bind=True)

    def _run(self, kind: JobType, jid: str, arguments: dict[str, int]) -> float:
        result = compute(kind, arguments["a"], arguments["b"])
        self.results.append((jid, result))
        return result

    def task_done(self, future: Any) -> None:
        super().task_done(future)
        self.client.acknowledged.release()
        self._reporter.progress(len(self.results))


def work(order: Order, reporter: Reporter) -> None:
    """Runs the jobs of a queue until all of an order are done or no more come, and reports."""
    client = CountingClient(order)
    client.connect()
    consumer = CountingConsumer(client, reporter)
    try:
        consumer.run()
    except SystemExit:  # how pyfaktory's loop always ends
        reporter.send(Ran(consumer.results, client.enqueued, client.left))
        client.disconnect()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which ends us
    work(read_order(), Reporter())
    os._exit(0)  # pyfaktory's heartbeat thread would sleep for up to 15 s more
