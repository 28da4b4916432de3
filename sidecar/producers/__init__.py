"""The local Faktory endpoint: what producers and consumers on this machine connect to.

*   `listener` accepts connections and keeps one bad client from harming the others.
*   `channel` carries the bytes of one connection, plain or TLS.
*   `connection` speaks the Faktory Work Protocol with one client, replies in the order of its commands.
*   `replies` is that order.
*   `riders` are connections that are lent while they say nothing but plain pushes: to the journal's thread in `disk`
    mode (`express`), to one task for all in `memory` mode (`shortcut`).
*   `passing` takes a command to upstream and its reply back, behind the barrier that it needs.
"""

from sidecar.producers.listener import Endpoint, Listener

__all__ = ["Endpoint", "Listener"]
