"""Removes the demo's queue from a server that isn't the demo's own. A process of its own, as pyfaktory blocks."""

from __future__ import annotations

import signal

from pyfaktory import Client

from sidecar.demo.orders import Order, Removed, Reporter, read_order


def sweep(order: Order, reporter: Reporter) -> None:
    """Removes the queue of an order with what is left in it, and reports."""
    with Client(faktory_url=order.url, role="producer") as client:
        client.queue_remove([order.queue])
    reporter.send(Removed())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which ends us
    sweep(read_order(), Reporter())
