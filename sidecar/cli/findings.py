"""What `check` found, and what follows from it. Pure: facts in, sentences and numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.cli.upstream_probe import ProbeError, Upstream
from sidecar.config import SETTINGS, Ack, Loaded, Settings
from sidecar.config.declared import BATCH_SIZES, value_text
from sidecar.journal.probe import Contents
from sidecar.journal.volume import Volume

FAKTORY_JOBS_A_SECOND: Final = 30_000  # what a Faktory on two cores takes in batches; a larger one takes more
NEAR: Final = 0.001  # s; below, a round trip costs a producer less than a commit on most disks
SLOW_FSYNC: Final = 0.02  # s


@dataclass(frozen=True, slots=True)
class Port:
    """A bind of the settings, tried.

    Args:
        problem: why it can't be had now, None when it can.
    """

    setting: str
    purpose: str
    address: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that `check` looked at.

    Args:
        volume: None when the mode keeps no journal; in words why a journal can't be there.
        contents: None beside one of these.
    """

    loaded: Loaded
    upstream: Upstream | ProbeError
    volume: Volume | str | None
    contents: Contents | None
    ports: tuple[Port, ...]

    @property
    def exit_code(self) -> int:
        """0 fine, 1 upstream can't be used, 2 the journal can't, with these settings."""
        if isinstance(self.volume, str) or self.foreign_journal is not None:
            return 2
        return 1 if isinstance(self.upstream, ProbeError) else 0

    @property
    def foreign_journal(self) -> str | None:
        """Why the journal's jobs aren't for this upstream, None when they are."""
        if self.contents is None:
            return None
        return self.contents.foreign(self.loaded.settings.upstream.identity)


def effective(settings: Settings, name: str) -> str | None:
    """The value of a setting as it is in force, secrets hidden; None for none."""
    upstream = settings.upstream
    special: dict[str, object] = {
        "SIDECAR_UPSTREAM": upstream,
        "SIDECAR_UPSTREAM_PASSWORD": upstream.password,
        "SIDECAR_UPSTREAM_TLS_CA": upstream.cafile,
        "SIDECAR_UPSTREAM_TLS_CERT": upstream.certfile,
        "SIDECAR_UPSTREAM_TLS_KEY": upstream.keyfile,
    }
    value = special[name] if name in special else getattr(settings, SETTINGS[name].field)
    return value_text(name, value)


def keeps_journal(settings: Settings) -> bool:
    """Whether `+OK` rests on the journal."""
    return settings.auto_batch and settings.ack is Ack.DISK


def link_capacity(settings: Settings, upstream: Upstream) -> float:
    """Jobs a second that the link can carry: batches in flight times their size, each round trip."""
    size = settings.batch_max_size if settings.auto_batch and upstream.pushb else 1
    return size * settings.pipeline_depth / upstream.round_trip


def advice(findings: Findings) -> Iterator[str]:
    """What to change, only where something is gained by it."""
    settings, upstream = findings.loaded.settings, findings.upstream
    if isinstance(upstream, Upstream):
        yield from _of_the_link(settings, upstream)
    if isinstance(findings.volume, Volume):
        yield from _of_the_volume(settings, findings.volume)


def _of_the_link(settings: Settings, upstream: Upstream) -> Iterator[str]:
    if upstream.beyond_private and not settings.upstream.tls:
        yield "jobs cross a public network in the clear: tcp+tls:// encrypts them"
    if not upstream.pushb:
        yield "this Faktory knows no PUSHB (1.6.0 does): jobs leave one by one, pipelined"
    elif not settings.auto_batch:
        yield "BATCH_AUTO_ENABLED=true would send jobs in batches; now each producer waits for each job"
    elif link_capacity(settings, upstream) < FAKTORY_JOBS_A_SECOND:
        wanted = FAKTORY_JOBS_A_SECOND * upstream.round_trip / settings.pipeline_depth
        size = min(BATCH_SIZES[1], math.ceil(wanted / 50) * 50)
        yield f"BATCH_MAX_SIZE={size} would let the link carry what Faktory takes"
    if upstream.round_trip < NEAR and keeps_journal(settings):
        yield (
            f"upstream is near ({upstream.round_trip * 1000:.2g} ms): the journal still covers outages, but a producer "
            "that waits for each reply is not faster than directly"
        )


def _of_the_volume(settings: Settings, volume: Volume) -> Iterator[str]:
    if volume.fsync > SLOW_FSYNC:
        yield (
            f"an fsync takes {volume.fsync * 1000:.0f} ms, so a producer that waits for each reply gets at most "
            f"{per_second(1 / volume.fsync)} jobs/s: a faster volume for SIDECAR_JOURNAL_DIR"
        )
    if volume.free < settings.journal_max_bytes:
        yield "less space is free than SIDECAR_JOURNAL_MAX_BYTES allows: the disk would be full first"


def per_second(rate: float) -> str:
    """A rate for people: whole below 1,000, then three digits that count; never more than there is."""
    step = 10 ** max(0, math.floor(math.log10(max(rate, 1))) - 2)
    return f"{math.floor(rate / step) * step:,}" if rate >= 1 else f"{rate:.1f}"


def home_relative(path: Path) -> str:
    """A path with the user's own home as `~`."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (RuntimeError, ValueError):
        return str(path)
