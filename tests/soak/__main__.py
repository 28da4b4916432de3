"""`python -m tests.soak --minutes 30`: honest clients beside hostile ones, and troubles; then what became of it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.ledger.troubles import TROUBLES
from tests.real.sidecar_command import hear_signals
from tests.soak.hostile import ATTACKS
from tests.soak.play import soak


def main() -> int:
    """Run; 1 when something isn't as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")), help="of the dice (default: the day)")
    names = ", ".join([*TROUBLES, "freeze", "term", "hup", *ATTACKS])
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help=f"leave out: {names}")
    options = parser.parse_args()
    hear_signals()
    verdict = soak(options.minutes * 60, options.seed, without=options.without)
    return 1 if verdict.missed else 0


if __name__ == "__main__":
    sys.exit(main())
