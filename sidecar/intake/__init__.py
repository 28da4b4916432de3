"""Takes jobs, and answers for them.

*   `door` decides: may a job be taken, in which lane does it go, what is its producer told.
*   `turn` are jobs on their way to the disk, `ticket` jobs on their way to upstream's verdict; `answers` is what they
    have in common, `deadlines` answers for them when it takes too long.
*   `barriers` let a command wait for the jobs before it.
"""

from sidecar.intake.answers import Done, Verdicts
from sidecar.intake.deadlines import ANSWER_WITHIN, Deadlines
from sidecar.intake.door import Intake
from sidecar.intake.turn import LentTurn

__all__ = ["ANSWER_WITHIN", "Deadlines", "Done", "Intake", "LentTurn", "Verdicts"]
