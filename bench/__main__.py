"""`python -m bench`, from a checkout: everything side by side, or this checkout beside another commit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from bench.beside import BESIDE_ROWS, run_beside
from bench.rows import ROWS, Row, selected
from bench.run import Plan, run_bench
from sidecar.cli.demo import RoundTrip
from sidecar.config.parsing import masked_url
from sidecar.config.parsing import upstream as parse_url

DEFAULT_TRIPS: Final = "0,1,10,50,100ms"
QUICK_TRIPS: Final = "0,50ms"


class RoundTrips(click.ParamType[tuple[float, ...]]):
    """Round trips with commas between them, `0,1,10ms`; the unit of the last counts for those without one."""

    name = "durations"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        texts = [text.strip() for text in str(value).split(",")]
        unit = texts[-1].lstrip("0123456789. ")
        one = RoundTrip()
        trips = [one.convert(text if text[-1:].isalpha() else text + unit, param, ctx) for text in texts]
        return tuple(dict.fromkeys(trips))


@click.command("bench")
@click.option("--rtt", type=RoundTrips(), help=f"Round trips of the simulated WAN.  [default: {DEFAULT_TRIPS}]")
@click.option("--rows", metavar="NAME,NAME", help="Only these rows; --list names them.")
@click.option("--list", "listing", is_flag=True, help="List the rows and do nothing.")
@click.option("--rounds", type=click.IntRange(1, 99), help="How often each row is measured.  [default: 5]")
@click.option("--seconds", type=click.FloatRange(0.1, 60), help="How long a row takes, about.  [default: 1]")
@click.option("--size", type=click.IntRange(0, 1 << 20), default=0, help="Bytes of text in each job.  [default: none]")
@click.option("--quick", is_flag=True, help="The rows of the main targets, once: about a minute.")
@click.option("--no-cost", is_flag=True, help="Without the part about cost.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="Write plots (SVG) to this directory.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work on this disk.  [default: where journals are]",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path, file_okay=False),
    help="Sample the sidecar with py-spy; collapsed stacks go to this directory.",
)
@click.option("--beside", metavar="REV", help="Compare with another commit of this repository, round by round.")
@click.option("--upstream", metavar="URL", help="A Faktory of your own instead; asks before it is loaded.")
@click.option("--yes", is_flag=True, help="Don't ask: that server may be loaded.")
def command(
    rtt: tuple[float, ...] | None,
    rows: str | None,
    listing: bool,
    rounds: int | None,
    seconds: float | None,
    size: int,
    quick: bool,
    no_cost: bool,
    json_file: Path | None,
    plots: Path | None,
    directory: Path | None,
    profile: Path | None,
    beside: str | None,
    upstream: str | None,
    yes: bool,
) -> None:
    """Measure the sidecar beside everything it could be compared with, on this machine, in one run.

    Starts its own Faktory (the real one where `faktory` and `redis-server` are found, else the embedded one) and
    uses a queue of its own, which it empties. FAKTORY_URL is not looked at.
    """
    chosen = _chosen(rows, quick=quick, beside=beside is not None)
    console = Console()
    if listing:
        for row in chosen:
            click.echo(f"{row.name:18} {row.way}: {row.label}")
        return
    if beside is not None:
        trip = rtt[0] if rtt else 0.0
        sys.exit(run_beside(beside, chosen, trip, rounds or 7, seconds or 1.0, directory, console))
    if upstream is not None:
        _confirm(upstream, yes=yes, rtt=rtt)
    default = "0ms" if upstream else QUICK_TRIPS if quick else DEFAULT_TRIPS
    plan = Plan(
        rows=chosen,
        trips=rtt or RoundTrips().convert(default, None, None),
        rounds=rounds or (1 if quick else 5),
        seconds=seconds or 1.0,
        size=size,
        upstream=upstream or "",
        cost=not (no_cost or quick or rows),
        json=json_file,
        plots=plots,
        directory=directory,
        profile=profile,
    )
    sys.exit(run_bench(plan, console))


def _chosen(names: str | None, *, quick: bool, beside: bool) -> Sequence[Row]:
    if names is None and beside:
        return selected(BESIDE_ROWS)
    if names is None:
        return [row for row in ROWS if row.quick or not quick]
    try:
        return selected([name.strip() for name in names.split(",")])
    except KeyError as error:
        raise click.BadParameter(f"there is no row {error}; --list names them", param_hint="--rows") from None


def _confirm(url: str, *, yes: bool, rtt: tuple[float, ...] | None) -> None:
    """Nobody's server is loaded by accident."""
    try:
        address = parse_url(url)
    except ValueError as error:
        raise click.BadParameter(f"{masked_url(url)}: {error}", param_hint="--upstream") from None
    if address.tls and rtt and any(rtt):
        raise click.BadParameter("with TLS no WAN can be simulated before it, use --rtt 0", param_hint="--upstream")
    if not yes:
        question = (
            f"Push some hundred thousand jobs to {address.display}, as fast as it takes them (a queue of our own)?"
        )
        click.confirm(question, abort=True)


if __name__ == "__main__":
    command(prog_name="python -m bench")
