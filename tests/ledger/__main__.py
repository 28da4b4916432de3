"""`python -m tests.ledger --cycles 200`: kill the sidecar so often, and count what is lost and what is doubled."""

from __future__ import annotations

import argparse
import sys
import time

from tests.ledger.driver import DRAINING, drive
from tests.ledger.troubles import TROUBLES
from tests.real.sidecar_command import hear_signals


def main() -> int:
    """Run; 1 when a job was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.ledger", description=__doc__)
    parser.add_argument("--cycles", type=int, default=200, help="kills (default 200)")
    parser.add_argument("--round", type=int, default=25, help="kills between two counts (default 25)")
    parser.add_argument("--seed", type=int, default=None, help="of the dice (default: the day, 20260131)")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help=f"leave out: {', '.join([*TROUBLES, *(one.name for one in DRAINING)])}",
    )
    options = parser.parse_args()
    hear_signals()
    seed = int(time.strftime("%Y%m%d")) if options.seed is None else options.seed
    started = time.monotonic()
    total = drive(options.cycles, seed=seed, per_round=options.round, without=options.without)
    print(
        f"\n{total.acknowledged:,} jobs acknowledged over {total.kills} kill -9: {total.lost} lost, "
        f"{total.duplicates:,} sent twice (bound {total.bound:,}); {time.monotonic() - started:.0f} s"
    )
    return 1 if total.lost else 0


if __name__ == "__main__":
    sys.exit(main())
