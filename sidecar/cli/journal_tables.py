"""How the `journal` commands show what they found: fields for scripts, tables for people."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.config import size_text
from sidecar.journal.schema import DB_NAME
from sidecar.journal.seal import DeadLetter, Row
from sidecar.journal.slots import said_of_left
from sidecar.journal.visitor import Visitor


class _Shown(msgspec.Struct):
    """What a list shows of a job's JSON."""

    jid: str = ""
    jobtype: str = ""
    queue: str = "default"


_shown = msgspec.json.Decoder(_Shown)


def status_of(directory: Path) -> dict[str, Any]:
    """A journal's state, for scripts.

    Raises:
        StartError: it can't be read.
    """
    if not (directory / DB_NAME).exists() and (left := _left(directory, None)):
        nothing = dict.fromkeys(("waiting", "dead", "to_be_retried", "set_aside", "bytes"), 0)
        return {"directory": str(directory), "owner": None, "upstream": None, "oldest": None, **nothing, **left}
    with Visitor(directory) as visitor:
        counts = visitor.counts()
        oldest = next(visitor.jobs(), None) if counts.jobs else None
        return {
            "directory": str(directory),
            "owner": None if visitor.owner is None else str(visitor.owner),
            "upstream": visitor.upstream(),
            "waiting": counts.jobs,
            "dead": counts.dead,
            "to_be_retried": visitor.flagged(),
            "set_aside": counts.damaged,
            "oldest": _time(oldest.at) if isinstance(oldest, Row) else None,
            "bytes": visitor.size(),
            **_left(directory, visitor.upstream()),
        }


def _left(directory: Path, identity: str | None) -> dict[str, dict[str, str]]:
    said = said_of_left(directory, identity)
    return {"left_by_runs": {str(slot): text for slot, text in said.items()}} if said else {}


def show_status(found: dict[str, Any]) -> None:
    """The state as a page."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    waiting = f"{found['waiting']:,} jobs"
    if found["oldest"]:
        waiting += f", the oldest since {found['oldest']}"
    dead = f"{found['dead']:,} dead letters"
    if found["to_be_retried"]:
        dead += f", {found['to_be_retried']:,} of them to be sent again"
    lines = [
        ("journal", f"{found['directory']}, {size_text(found['bytes'])} on disk"),
        ("upstream", found["upstream"] or "none on record"),
        ("owner", found["owner"] or "none: no sidecar runs on it"),
        (
            "waiting",
            f"{found['waiting']:,} jobs" + (f", the oldest since {found['oldest']}" if found["oldest"] else ""),
        ),
        ("dead", dead),
    ]
    if found["set_aside"]:
        lines.append(("damaged", f"{found['set_aside']:,} rows set aside"))
    for slot, text in found.get("left_by_runs", {}).items():
        lines.append(("beside it", f"{Path(slot).name}: {text}"))
    for label, text in lines:
        table.add_row(label, Text(text))
    _console().print(table)


def job_fields(row: Row | int) -> dict[str, Any]:
    """What a list shows of a waiting job; a damaged one has only its id."""
    if isinstance(row, int):
        return {"id": row, "jid": None, "jobtype": None, "queue": None, "since": None, "attempts": None, "bytes": None}
    shown = _decoded(row.payload)
    return {
        "id": row.id,
        "jid": shown.jid,
        "jobtype": shown.jobtype,
        "queue": shown.queue or "default",
        "since": _time(row.at),
        "attempts": row.attempts,
        "bytes": len(row.payload),
    }


def letter_fields(letter: DeadLetter | int) -> dict[str, Any]:
    """What a list shows of a dead letter; a damaged one has only its id."""
    if isinstance(letter, int):
        return {"id": letter, "jid": None, "jobtype": None, "at": None, "attempts": None, "reason": "damaged"}
    return {
        "id": letter.id,
        "jid": letter.jid,
        "jobtype": _decoded(letter.payload).jobtype,
        "at": _time(letter.at),
        "attempts": letter.attempts,
        "reason": letter.reason,
    }


def payload_of(payload: bytes) -> Any:
    """A job's JSON, or its text where it is none."""
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")


def show_jobs(rows: list[dict[str, Any]], total: int) -> None:
    """Waiting jobs as a table."""
    _show(rows, ("jid", "jobtype", "queue", "since", "attempts", "bytes"), total, "jobs wait")


def show_letters(rows: list[dict[str, Any]], total: int) -> None:
    """Dead letters as a table."""
    _show(rows, ("jid", "jobtype", "at", "attempts", "reason"), total, "dead letters")


def show_one(found: list[dict[str, Any]]) -> None:
    """Jobs with all that is known of them."""
    console = _console()
    for each in found:
        for key, value in each.items():
            if key != "job":
                console.print(Text(f"{key:<9} {value}"))
        console.print(Text(json.dumps(each["job"], indent=2, ensure_ascii=False)))


def show_verified(found: dict[str, Any]) -> None:
    """What `verify` found."""
    console = _console()
    for problem in found["problems"]:
        console.print(Text(f"damaged: {problem}", style="bold red"))
    if not found["problems"]:
        console.print(Text(f"ok: {found['jobs']:,} jobs and {found['dead']:,} dead letters are what was written"))
    if found["set_aside"]:
        console.print(Text(f"{found['set_aside']:,} damaged rows were set aside earlier"))


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], total: int, what: str) -> None:
    console = _console()
    if rows:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            numeric = column in ("attempts", "bytes")
            table.add_column(column, justify="right" if numeric else "left", no_wrap=column == "jid", overflow="fold")
        for row in rows:
            table.add_row(*(Text("" if row[column] is None else str(row[column])) for column in columns))
        console.print(table)
    more = f", {len(rows):,} shown" if total > len(rows) else ""
    console.print(Text(f"{total:,} {what}{more}"))


def _console() -> Console:
    return Console(highlight=False)


def _decoded(payload: bytes) -> _Shown:
    try:
        return _shown.decode(payload)
    except msgspec.DecodeError:
        return _Shown(jid="?", jobtype="?", queue="?")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if 0 < at < time.time() + 1e9 else "unknown"
