"""`faktory-sidecar journal ...`: looking into a journal and after its dead letters, also beside a running sidecar."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click

from sidecar.cli import journal_tables as tables
from sidecar.cli.options import given_flags, load_and_log, settings_options
from sidecar.config import load
from sidecar.errors import JOBS_LEFT, StartError
from sidecar.journal.seal import DeadLetter, Row
from sidecar.journal.visitor import Visitor, discard, put_back

WAIT_STEP = 0.25
"""Seconds between two looks of `status --wait-empty`."""
DEFAULT_LIMIT = 50

F = TypeVar("F", bound=Callable[..., Any])

as_json_option = click.option("--json", "as_json", is_flag=True, help="For scripts: JSON on stdout.")
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=DEFAULT_LIMIT, show_default=True, help="Show so many at most."
)


def directory_options(command: F) -> F:
    """Gives a command `--journal-dir` and `--upstream`, and calls it with `directory`."""

    def choose(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
        if text is not None:
            name = {"journal_dir": "SIDECAR_JOURNAL_DIR", "upstream": "SIDECAR_UPSTREAM"}[parameter.name or ""]
            context.obj = {**given_flags(context), name: text}
        return text

    for flag, help in (
        ("--upstream", "The upstream whose default directory is meant. [SIDECAR_UPSTREAM]"),
        ("--journal-dir", "The journal's directory. [SIDECAR_JOURNAL_DIR]"),
    ):
        command = click.option(flag, metavar="TEXT", expose_value=False, callback=choose, help=help)(command)
    return command


def directory_of(flags: Mapping[str, str], environ: Mapping[str, str]) -> Path:
    """The directory that is meant: a named one, else the default one of the upstream.

    Raises:
        StartError: exit code 2, neither is known.
    """
    named = flags.get("SIDECAR_JOURNAL_DIR") or environ.get("SIDECAR_JOURNAL_DIR")
    if named and "SIDECAR_UPSTREAM" not in flags:
        return Path(named).expanduser()
    return load(environ, flags).settings.journal_dir


def _here(context: click.Context) -> Path:
    return directory_of(given_flags(context), os.environ)


@click.group("journal")
def command() -> None:
    """Look into a journal and after its dead letters, also while a sidecar runs on it."""


@command.command("status")
@directory_options
@click.option("--wait-empty", is_flag=True, help="Wait until no job waits in it.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds that --wait-empty waits at most.")
@as_json_option
@click.pass_context
def status(context: click.Context, wait_empty: bool, timeout: float | None, as_json: bool) -> int:
    """How many jobs wait, how many are dead, who owns it. Exit code 75: --wait-empty, and there are some."""
    directory = _here(context)
    until = None if timeout is None else time.monotonic() + timeout
    found = tables.status_of(directory)
    while wait_empty and found["waiting"]:
        if until is not None and time.monotonic() >= until:
            break
        time.sleep(WAIT_STEP)
        found = tables.status_of(directory)
    if as_json:
        click.echo(json.dumps(found))
    else:
        tables.show_status(found)
    return JOBS_LEFT if wait_empty and (found["waiting"] or found["dead"]) else 0


@command.command("ls")
@directory_options
@limit_option
@as_json_option
@click.pass_context
def ls(context: click.Context, limit: int, as_json: bool) -> int:
    """The jobs that wait, the oldest first."""
    with Visitor(_here(context)) as visitor:
        rows = [tables.job_fields(row) for row in islice(visitor.jobs(), limit)]
        total = visitor.counts().jobs
    return _listed(rows, total, as_json=as_json, show=tables.show_jobs)


@command.command("show")
@directory_options
@as_json_option
@click.argument("jid")
@click.pass_context
def show(context: click.Context, jid: str, as_json: bool) -> int:
    """One job, waiting or dead, with its payload. Exit code 1: it isn't there."""
    with Visitor(_here(context)) as visitor:
        return _shown([*_waiting(visitor, jid), *_dead(visitor, jid)], jid, as_json=as_json)


def _waiting(visitor: Visitor, jid: str) -> Iterator[dict[str, Any]]:
    for row in visitor.jobs(jid.encode()):
        fields = tables.job_fields(row)
        if fields["jid"] == jid and isinstance(row, Row):
            yield {**fields, "state": "waiting", "job": tables.payload_of(row.payload)}


def _dead(visitor: Visitor, jid: str) -> Iterator[dict[str, Any]]:
    for letter in visitor.letters(jid):
        if isinstance(letter, DeadLetter):
            yield {**tables.letter_fields(letter), "state": "dead", "job": tables.payload_of(letter.payload)}


def _shown(found: list[dict[str, Any]], jid: str, *, as_json: bool) -> int:
    if not found:
        raise StartError(f"no {jid} in the journal: it was delivered, or never came here")
    if as_json:
        for each in found:
            click.echo(json.dumps(each))
    else:
        tables.show_one(found)
    return 0


@command.command("export")
@directory_options
@click.option("--dead", "dead_too", is_flag=True, help="Dead letters instead, with reason, attempts and time.")
@click.pass_context
def export(context: click.Context, dead_too: bool) -> int:
    """Every job as a line of JSON on stdout, as it would go upstream. Exit code 1: damaged ones were left out."""
    damaged = 0
    with Visitor(_here(context)) as visitor:
        for each in visitor.letters() if dead_too else visitor.jobs():
            if isinstance(each, int):
                damaged += 1
            elif isinstance(each, DeadLetter):
                click.echo(json.dumps({**tables.letter_fields(each), "job": tables.payload_of(each.payload)}))
            else:
                sys.stdout.buffer.write(each.payload.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
        sys.stdout.buffer.flush()
    if damaged:
        click.echo(f"{damaged:,} damaged ones were left out", err=True)
    return 1 if damaged else 0


@command.command("verify")
@directory_options
@as_json_option
@click.pass_context
def verify(context: click.Context, as_json: bool) -> int:
    """Reads everything and compares it with its seals and counts. Exit code 1: something is damaged.

    Beside a running sidecar the counts move while they are read, so only the seals are compared.
    """
    with Visitor(_here(context)) as visitor:
        jobs, bad_jobs = _tally(visitor.jobs())
        letters, bad_letters = _tally(visitor.letters())
        counts = visitor.counts()
        problems = [f"{bad_jobs:,} jobs don't fit their seals"] if bad_jobs else []
        problems += [f"{bad_letters:,} dead letters don't fit their seals"] if bad_letters else []
        if visitor.owner is None:
            problems += visitor.quick_check()
            if (counts.jobs, counts.dead) != (jobs + bad_jobs, letters + bad_letters):
                problems.append(f"it counts {counts.jobs:,} jobs and {counts.dead:,} dead letters, not what is there")
    found = {"jobs": jobs, "dead": letters, "set_aside": counts.damaged, "problems": problems}
    if as_json:
        click.echo(json.dumps(found))
    else:
        tables.show_verified(found)
    return 1 if problems else 0


def _tally(each: Iterator[Row | int] | Iterator[DeadLetter | int]) -> tuple[int, int]:
    sound = damaged = 0
    for item in each:
        if isinstance(item, int):
            damaged += 1
        else:
            sound += 1
    return sound, damaged


@command.command("send")
@settings_options
@click.option("--adopt-journal", is_flag=True, help="Send them to this upstream though they were meant for another.")
@click.pass_context
def send(context: click.Context, adopt_journal: bool) -> int:
    """Empties a journal that no sidecar runs on into upstream, and ends. Exit code 75: jobs or dead letters stay."""
    from dataclasses import replace

    from sidecar.app.sending import send_journal

    settings = load_and_log(given_flags(context), os.environ).settings
    return send_journal(replace(settings, adopt_journal=adopt_journal))


@command.group("dead")
def dead() -> None:
    """Dead letters: acknowledged jobs that upstream refused for good."""


@dead.command("ls")
@directory_options
@limit_option
@as_json_option
@click.pass_context
def dead_ls(context: click.Context, limit: int, as_json: bool) -> int:
    """The dead letters, the oldest first."""
    with Visitor(_here(context)) as visitor:
        rows = [tables.letter_fields(letter) for letter in islice(visitor.letters(), limit)]
        total = visitor.counts().dead
    return _listed(rows, total, as_json=as_json, show=tables.show_letters)


@dead.command("show")
@directory_options
@as_json_option
@click.argument("jid")
@click.pass_context
def dead_show(context: click.Context, jid: str, as_json: bool) -> int:
    """One dead letter with its payload. Exit code 1: it isn't there."""
    with Visitor(_here(context)) as visitor:
        return _shown(list(_dead(visitor, jid)), jid, as_json=as_json)


@dead.command("retry")
@directory_options
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.argument("jids", nargs=-1)
@click.pass_context
def retry(context: click.Context, jids: tuple[str, ...], everything: bool) -> int:
    """Makes jobs of dead letters again; a running sidecar sends them within a second or two."""
    directory = _here(context)
    count = put_back(directory, _chosen(directory, jids, everything=everything))
    click.echo(f"{count:,} dead letters are to be sent again")
    return 0


@dead.command("discard")
@directory_options
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.argument("jids", nargs=-1)
@click.pass_context
def dead_discard(context: click.Context, jids: tuple[str, ...], everything: bool, yes: bool) -> int:
    """Deletes dead letters for good."""
    directory = _here(context)
    ids = _chosen(directory, jids, everything=everything)
    if not yes:
        click.confirm(f"Delete {len(ids):,} dead letters for good?", abort=True)
    click.echo(f"{discard(directory, ids):,} dead letters are deleted")
    return 0


def _chosen(directory: Path, jids: tuple[str, ...], *, everything: bool) -> list[int]:
    """Ids of the dead letters that are meant.

    Raises:
        StartError: one of them isn't there.
    """
    if everything == bool(jids):
        raise click.UsageError("name the JIDs, or say --all")
    with Visitor(directory) as visitor:
        if everything:
            return [each if isinstance(each, int) else each.id for each in visitor.letters()]
        ids: list[int] = []
        for jid in jids:
            found = [letter.id for letter in visitor.letters(jid) if isinstance(letter, DeadLetter)]
            if not found:
                raise StartError(f"no dead letter {jid}")
            ids += found
        return ids


def _listed(
    rows: list[dict[str, Any]], total: int, *, as_json: bool, show: Callable[[list[dict[str, Any]], int], None]
) -> int:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        show(rows, total)
    return 0
