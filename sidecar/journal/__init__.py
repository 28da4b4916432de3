"""The journal: the durable store of jobs that are acknowledged and not yet settled.

    Journal (event loop) --requests--> Writer (thread) --transactions--> Store (SQLite)
            ^------------------news-----------'

`+OK` is sent after a group commit: one transaction and one sync for all that waits. Jobs leave when upstream has
accepted them, or become dead letters. Every row has a seal (CRC-32), because SQLite's pages have none; a damaged file
is copied aside and rebuilt, never a reason not to start. A full disk refuses jobs and goes on deleting.
"""

from sidecar.journal.journal import Journal
from sidecar.journal.recovery import Recovery
from sidecar.journal.seal import DeadLetter, Row

__all__ = ["DeadLetter", "Journal", "Recovery", "Row"]
