"""`faktory-sidecar serve`, also without a command: the sidecar itself."""

from __future__ import annotations

import os
from dataclasses import replace

import click

from sidecar.cli.options import given_flags, load_and_log, settings_options
from sidecar.config import Settings


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

    from sidecar.app import serve

    return trio.run(serve, settings)
