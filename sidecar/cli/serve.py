"""`faktory-sidecar serve`, also without a command: the sidecar itself."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from functools import partial

import click

from sidecar.cli.options import given_flags, load_and_log, settings_options
from sidecar.config import Settings
from sidecar.logs import get_logger

FILES = 65_536
"""Open files that are enough for every number of local connections that makes sense."""


@click.command("serve")
@settings_options
@click.option(
    "--adopt-journal",
    is_flag=True,
    help="Take over a journal whose jobs were accepted for another upstream: they go to this one.",
)
@click.pass_context
def command(context: click.Context, adopt_journal: bool) -> int:
    """Accept jobs on localhost and send them to the real Faktory in batches.

    Every option can also be given in the environment, under the name in brackets; options win.
    SIGTERM or Ctrl-C drains, a second one stops at once.
    """
    loaded = load_and_log(given_flags(context), os.environ)
    return _serve(replace(loaded.settings, adopt_journal=adopt_journal))


def _serve(settings: Settings) -> int:
    import trio

    from sidecar.app.sending import beside_left_slots
    from sidecar.app.serving import serve
    from sidecar.clock import RunningClock

    _allow_many_connections()
    return trio.run(beside_left_slots, settings, partial(serve, settings), clock=RunningClock())


def _allow_many_connections() -> None:
    """Raise the soft limit of open files, one for each connection: shells and service managers often set 1,024 or less.

    The hard limit is the operator's and stays; `run` leaves both alone, since its command would inherit them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:  # macOS has a lower limit of its own
        get_logger().debug("open_files", message=f"Up to {soft:,} open files: {error}", soft=soft)
