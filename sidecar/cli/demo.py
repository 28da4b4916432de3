"""`faktory-sidecar demo`: the main job in half a minute."""

from __future__ import annotations

import re
from typing import Final

import click

DEFAULT_RTT: Final = "50ms"
MAX_RTT: Final = 2.0  # s
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(ms|s)")


class RoundTrip(click.ParamType[float]):
    """A round trip as people write it, `50ms` or `0.1s`, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _DURATION.fullmatch(str(value).strip())
        seconds = -1.0 if match is None else float(match[1]) / (1000 if match[2] == "ms" else 1)
        if not 0 <= seconds <= MAX_RTT:
            self.fail(f"{str(value)!r}: expected a duration from 0ms to {MAX_RTT:g}s, like {DEFAULT_RTT}", param, ctx)
        return seconds


@click.command("demo")
@click.option(
    "--rtt", type=RoundTrip(), default=DEFAULT_RTT, show_default=True, help="Round trip of the simulated WAN."
)
@click.option(
    "--upstream",
    metavar="URL",
    help="A real Faktory instead of the embedded one; the demo uses a queue of its own there and empties it.",
)
def command(rtt: float, upstream: str | None) -> int:
    """Producers and a worker against a far-away Faktory, first directly, then through the sidecar.

    Needs no server: an embedded Faktory in memory and a simulated WAN are part of it. FAKTORY_URL is not looked at.
    """
    from sidecar.demo.show import run_demo

    return run_demo(rtt=rtt, upstream=upstream)
