"""How `check` shows what it found: a page for people, an object for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from sidecar import __version__
from sidecar.cli.findings import (
    FAKTORY_JOBS_A_SECOND,
    Findings,
    advice,
    effective,
    home_relative,
    keeps_journal,
    link_capacity,
    per_second,
)
from sidecar.cli.upstream_probe import Upstream
from sidecar.config import SETTINGS, size_text
from sidecar.journal.probe import Contents
from sidecar.journal.slots import said_of_left
from sidecar.journal.volume import Volume

OK, WARN, FAIL, OFF, NONE = "ok", "warn", "fail", "off", "none"
STYLES: Final = {OK: "green", WARN: "yellow", FAIL: "bold red"}
LABEL_WIDTH: Final = 10
STATE_WIDTH: Final = 5

Row = tuple[str, str, list[str]]


def show(findings: Findings) -> None:
    """Print the page on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    for label, state, lines in _rows(findings):
        head = Text(f"{label:<{LABEL_WIDTH}}")
        head.append(f"{state:<{STATE_WIDTH}}", style=STYLES.get(state, ""))
        head.append(("\n" + " " * (LABEL_WIDTH + STATE_WIDTH)).join(lines))
        console.print(head)


def _rows(findings: Findings) -> Iterator[Row]:
    yield _upstream(findings)
    yield _journal(findings)
    yield _ports(findings)
    yield _settings(findings)
    if isinstance(findings.upstream, Upstream):
        yield "direct", "", [f"at most {per_second(1 / findings.upstream.round_trip)} jobs/s a producer"]
        yield "here", "", [_here(findings, findings.upstream)]
    given = list(advice(findings))
    if given or isinstance(findings.upstream, Upstream):
        yield "advice", "" if given else NONE, given or ["the settings fit this link"]


def _upstream(findings: Findings) -> Row:
    loaded, found = findings.loaded, findings.upstream
    head = f"{loaded.settings.upstream.display} ({loaded.sources['SIDECAR_UPSTREAM']})"
    if not isinstance(found, Upstream):
        return "upstream", FAIL, [head, f"{found.detail}: {found.hint}"]
    password = "password accepted" if found.wants_password else "no password wanted"
    batches = "PUSHB" if found.pushb else "no PUSHB"
    trip = f"round trip {_ms(found.round_trip)} (median of 10)"
    return "upstream", OK, [head, f"Faktory {found.version}, {password}, {batches}; {trip}"]


def _journal(findings: Findings) -> Row:
    settings, found = findings.loaded.settings, findings.volume
    if found is None:
        why = f"SIDECAR_ACK={settings.ack.value}" if settings.auto_batch else "BATCH_AUTO_ENABLED=false"
        return "journal", OFF, [f"{why}: +OK doesn't rest on it"]
    place = home_relative(settings.journal_dir)
    if isinstance(found, str):
        return "journal", FAIL, [place, found]
    if findings.foreign_journal is not None:
        return "journal", FAIL, [place, findings.foreign_journal]
    bound, contents = size_text(settings.journal_max_bytes), findings.contents
    disk = f"{found.kind}, {size_text(found.free)} free, fsync {_ms(found.fsync)}, {_held(contents)}, bound {bound}"
    left = [
        f"{slot.name}: {text}" for slot, text in said_of_left(settings.journal_dir, settings.upstream.identity).items()
    ]
    notes = [*left, contents.owner and f"open now: {contents.owner}", found.loses] if contents else [*left, found.loses]
    return "journal", OK if found.loses is None else WARN, [place, disk, *(note for note in notes if note)]


def _held(contents: Contents | None) -> str:
    if contents is None or contents.waiting is None:
        return "jobs waiting: the next start will tell"
    dead = f", {contents.dead:,} dead letters" if contents.dead else ""
    return f"{contents.waiting:,} jobs waiting{dead}"


def _ports(findings: Findings) -> Row:
    shown = [
        f"{port.address} ({port.purpose})"
        if port.problem is None
        else f"{port.address} ({port.purpose}: {port.problem})"
        for port in findings.ports
    ]
    busy = any(port.problem == "in use" for port in findings.ports)
    hint = ["in use is fine when the sidecar is running already"] if busy else []
    state = OK if all(port.problem is None for port in findings.ports) else WARN
    return "ports", state, ["  ".join(shown), *hint]


def _settings(findings: Findings) -> Row:
    """What isn't a default, with where it came from; upstream itself has a row of its own."""
    loaded = findings.loaded
    given = [
        f"{name}={effective(loaded.settings, name)} ({source})"
        for name, source in loaded.sources.items()
        if source not in ("default", loaded.sources["SIDECAR_UPSTREAM"])
    ]
    lines = [*given, *loaded.warnings]
    return "settings", WARN if loaded.warnings else OK, [*lines, "all others: defaults" if lines else "all defaults"]


def _here(findings: Findings, upstream: Upstream) -> str:
    settings = findings.loaded.settings
    capacity = link_capacity(settings, upstream)
    size = settings.batch_max_size if settings.auto_batch and upstream.pushb else 1
    limit = "Faktory" if capacity >= FAKTORY_JOBS_A_SECOND else "the link"
    return (
        f"the link carries up to {per_second(capacity)} jobs/s "
        f"({size:,} x {settings.pipeline_depth} / {_ms(upstream.round_trip)}); {limit} will be the limit"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.00005 else f"{seconds * 1000:.2f} ms"


def as_object(findings: Findings) -> dict[str, Any]:
    """Everything that the page says and more, for programs. Durations in ms, sizes in bytes."""
    loaded = findings.loaded
    return {
        "version": __version__,
        "ok": findings.exit_code == 0,
        "exit_code": findings.exit_code,
        "settings": {
            name: {"value": effective(loaded.settings, name), "source": loaded.sources[name]} for name in SETTINGS
        },
        "warnings": list(loaded.warnings),
        "upstream": _upstream_object(findings),
        "journal": _journal_object(findings),
        "ports": [
            {"setting": port.setting, "address": port.address, "free": port.problem is None, "problem": port.problem}
            for port in findings.ports
        ],
        "advice": list(advice(findings)),
    }


def _upstream_object(findings: Findings) -> dict[str, Any]:
    settings, found = findings.loaded.settings, findings.upstream
    address = {"url": settings.upstream.display, "source": findings.loaded.sources["SIDECAR_UPSTREAM"]}
    if not isinstance(found, Upstream):
        return address | {"ok": False, "phase": found.phase, "error": found.detail, "hint": found.hint}
    return address | {
        "ok": True,
        "faktory_version": found.version,
        "password_wanted": found.wants_password,
        "pushb": found.pushb,
        "round_trip_ms": round(found.round_trip * 1000, 3),
        "direct_jobs_per_second_and_producer": round(1 / found.round_trip, 1),
        "link_jobs_per_second": round(link_capacity(settings, found)),
    }


def _journal_object(findings: Findings) -> dict[str, Any]:
    settings, found = findings.loaded.settings, findings.volume
    place = {"used": keeps_journal(settings), "directory": str(settings.journal_dir)}
    if isinstance(found, str):
        return place | {"ok": False, "error": found}
    if not isinstance(found, Volume):
        return place | {"ok": True}
    contents = findings.contents or Contents(None, None)
    return place | {
        "ok": findings.foreign_journal is None,
        "error": findings.foreign_journal,
        "waiting_jobs": contents.waiting,
        "dead_letters": contents.dead,
        "jobs_for": contents.upstream,
        "owner": contents.owner,
        "file_system": found.kind,
        "free_bytes": found.free,
        "fsync_ms": round(found.fsync * 1000, 3),
        "bound_bytes": settings.journal_max_bytes,
        "warning": found.loses,
    }
