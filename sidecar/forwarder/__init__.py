"""Journal or memory -> batch -> link -> settle.

*   `forwarder` sends what the intake offers and settles it by upstream's replies.
*   `backlog` holds the jobs whose payload is only in the journal, and reads them back in pages.
*   `pacing` decides when a link that works should carry less, or nothing for a while.
*   `outcome` reads upstream's reply to a batch: what became of each job.
"""

from sidecar.forwarder.forwarder import Forwarder

__all__ = ["Forwarder"]
