"""A local stand-in for a Faktory server that is far away.

Five nouns are the architecture:

*   An **edge** (`producers`, `tunnel`, `web`) speaks to local clients: the Faktory Work Protocol or HTTP.
*   The **intake** decides each job's lane, stores it and acknowledges it.
*   The **journal** is the durable store of jobs that are acknowledged and not yet settled.
*   The **forwarder** makes batches of them, sends them on the link, and settles each job by upstream's reply.
*   The **link** is the one pipelined connection to upstream, the real Faktory, that carries all batches.

A job's life in `disk` mode: edge -> intake -> journal (fsync) -> `+OK` to the producer -> forwarder -> link ->
upstream's reply -> settled: deleted from the journal, retried, or kept as a dead letter.

Imports go downward only; docs/architecture.md has the layers.
"""

__version__ = "0.1.0"
