"""A pyfaktory producer as anybody writes it: one connection, one push after the other. A process of its own."""

from __future__ import annotations

import signal
import time

from pyfaktory import Client, Job, Producer

from sidecar.demo.orders import Order, Pushed, Reporter, numbers, read_order


def produce(order: Order, reporter: Reporter) -> None:
    """Pushes the jobs of an order, and reports."""
    pushed = Pushed([], [], [])
    with Client(faktory_url=order.url, role="producer") as client:
        producer = Producer(client)
        for number in range(order.first, order.first + order.jobs):
            kind, a, b = numbers(number)
            job = Job(jobtype=kind, args=[{"a": a, "b": b}], queue=order.queue)
            pushed.jids.append(job.jid)
            pushed.began.append(time.time())
            before = time.perf_counter()
            producer.push(job)
            pushed.replies.append(time.perf_counter() - before)
            reporter.progress(len(pushed.replies))
    reporter.send(pushed)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which ends us
    produce(read_order(), Reporter())
