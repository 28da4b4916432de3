"""The local Faktory endpoint: what producers and consumers on this machine connect to.

*   `listener` accepts connections and keeps one bad client from harming the others.
*   `channel` carries the bytes of one connection, plain or TLS.
*   `connection` speaks the Faktory Work Protocol with one client, replies in the order of its commands.
*   `replies` is that order.
*   `passing` takes a command to upstream and its reply back, behind the barrier that it needs.
"""

from sidecar.producers.listener import Endpoint, Listener

__all__ = ["Endpoint", "Listener"]
