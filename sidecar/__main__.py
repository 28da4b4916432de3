"""The command `faktory-sidecar`, also as `python -m sidecar`."""

from __future__ import annotations

import sys

from sidecar.cli.entry import run


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
