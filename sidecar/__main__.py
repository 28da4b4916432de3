"""The command `faktory-sidecar`, also as `python -m sidecar`."""

from __future__ import annotations

import sys

from sidecar.signals import INBOX


def main() -> None:
    """Run the command line and exit."""
    INBOX.arm()
    from sidecar.outlet import STDERR, take_over  # what takes time comes after

    take_over()
    from sidecar.cli.entry import run  # nothing is opened before the standard streams are

    try:
        code = run(sys.argv[1:])
    finally:
        STDERR.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
