"""A sidecar that tries jobs which wait apart every moment in place of each minute: `python -m tests.real.impatient`.

What is refused by Faktory's store for one job alone becomes a dead letter after several tries, minutes apart, while
others are accepted. Tests that want dead letters of a real Faktory have no such patience; all else is the product's.
"""

from __future__ import annotations

from sidecar.__main__ import main
from sidecar.forwarder import apart, judge

MOMENT = 0.02

if __name__ == "__main__":
    judge.COUNT_EVERY = apart.FIRST_PAUSE = apart.PAUSE = apart.STEP = MOMENT
    main()
