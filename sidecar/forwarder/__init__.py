"""Journal or memory -> batch -> link -> settle.

*   `forwarder` sends what the intake offers and settles it by upstream's replies.
*   `backlog` holds the jobs whose payload is only in the journal, and reads them back in pages.
*   `pacing` decides when a link that works should carry less, or nothing for a while.
*   `judge`, pure, finds what becomes of each job by upstream's reply, or by its loss; `settlement` carries it out.
*   `apart` keeps the jobs that upstream refuses while it takes others, and tries them again.
"""

from sidecar.forwarder.forwarder import Forwarder

__all__ = ["Forwarder"]
