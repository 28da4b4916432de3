"""`faktory-sidecar check`: would a start with these settings be a good one? Pushes and changes nothing."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from typing import Final

import click
import trio

from sidecar.cli import report
from sidecar.cli.findings import Findings, Port, keeps_journal
from sidecar.cli.options import given_flags, settings_options
from sidecar.cli.upstream_probe import ProbeError, Upstream, probe
from sidecar.config import Bind, Loaded, Settings, UpstreamAddress, load
from sidecar.errors import StartError
from sidecar.journal import host as journal_host
from sidecar.journal import probe as journal_probe
from sidecar.journal import volume
from sidecar.listening import CannotListen, open_listeners

PROBLEMS: Final = {errno.EADDRINUSE: "in use", errno.EACCES: "not permitted", errno.EADDRNOTAVAIL: "no such address"}


@click.command("check")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of the page.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """Effective settings and where each came from, upstream, journal, ports; advice where something is gained.

    Exit code 0: fine, 1: upstream can't be used, 2: settings are wrong.
    """
    try:
        findings = examine(load(os.environ, given_flags(context)))
    except StartError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "exit_code": error.exit_code, "errors": str(error).splitlines()}))
        raise
    if as_json:
        click.echo(json.dumps(report.as_object(findings), indent=2, ensure_ascii=False))
    else:
        report.show(findings)
    return findings.exit_code


def examine(loaded: Loaded) -> Findings:
    """Look at everything that the settings name."""
    settings = loaded.settings
    upstream = trio.run(_upstream, settings.upstream)
    found, contents = _journal(settings) if keeps_journal(settings) else (None, None)
    return Findings(loaded, upstream, found, contents, tuple(_ports(settings)))


async def _upstream(address: UpstreamAddress) -> Upstream | ProbeError:
    try:
        return await probe(address)
    except ProbeError as error:
        return error


def _journal(settings: Settings) -> tuple[volume.Volume | str, journal_probe.Contents | None]:
    """The volume, or why the journal can't be on it; what is in the journal."""
    try:
        journal_host.ask_sqlite()
        journal_host.ask_directory(settings.journal_dir)
        return volume.examine(settings.journal_dir), journal_probe.look(settings.journal_dir)
    except StartError as error:
        return str(error), None
    except (OSError, sqlite3.Error) as error:
        return journal_host.why(error), None


def _ports(settings: Settings) -> Iterator[Port]:
    """Try each bind for a moment; in use can well mean that the sidecar runs."""
    for setting, purpose, binds in (
        ("SIDECAR_LISTEN", "Faktory", settings.listen),
        ("SIDECAR_HTTP_LISTEN", "HTTP", settings.http_listen),
        ("SIDECAR_OPS_LISTEN", "health and metrics", settings.ops_listen),
    ):
        for bind in binds:
            yield Port(setting, purpose, str(bind), _why_not(setting, bind))


def _why_not(setting: str, bind: Bind) -> str | None:
    """Why an address can't be listened on, None when it can."""
    try:
        for sock, _ in open_listeners([bind], setting):
            sock.close()
    except CannotListen as failed:
        error = failed.error
        return PROBLEMS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    return None
