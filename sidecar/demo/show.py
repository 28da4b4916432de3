"""The demo: the same pyfaktory producer far from Faktory, then beside the sidecar, then a worker that counts.

It starts a Faktory of its own and ignores `FAKTORY_URL`; only `upstream` makes it use another server, of which it
touches nothing but a queue with a name of its own.
"""

from __future__ import annotations

import secrets
import signal
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit, urlunsplit

import trio
from rich.console import Console

from sidecar.config import UpstreamAddress
from sidecar.config.parsing import masked_url
from sidecar.config.parsing import upstream as parse_url
from sidecar.demo.display import Display, Measured, Stage
from sidecar.demo.embedded import EmbeddedFaktory
from sidecar.demo.orders import Order, Pushed, Ran, compute, numbers
from sidecar.demo.processes import DemoError, run_program, run_sidecar
from sidecar.demo.wan import SimulatedWan
from sidecar.demo.workunits import parse_timestamp
from sidecar.errors import StartError

ACK = "disk"
DIRECT_SECONDS = 5.0  # how long the direct producer may take, at one job a round trip
DIRECT_JOBS = 100
JOBS = 4000
INTERRUPTED = 130  # exit code, as shells have it
REACH_PATIENCE = 5.0  # seconds for a first connection to another server
SWEEP_PATIENCE = 10.0  # seconds for removing the queue from another server
STAGES = ("direct", "through the sidecar", "worker")


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs each producer pushes, 1 or more."""

    direct: int
    through: int

    @classmethod
    def fitting(cls, rtt: float) -> JobCounts:
        """As many as half a minute is enough for, at a round trip of `rtt` seconds."""
        return cls(max(4, min(DIRECT_JOBS, int(DIRECT_SECONDS / max(rtt, 0.001)))), JOBS)


@dataclass(frozen=True, slots=True)
class _Server:
    """Where the demo's Faktory is.

    Args:
        near, far: its URL beside it, and from behind the simulated WAN.
        ours: it is the embedded one.
        same_clock: its time is our time.
    """

    near: str
    far: str
    ours: bool
    same_clock: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    direct: Measured
    through: Measured
    promise: str


def run_demo(*, rtt: float, upstream: str | None, console: Console | None = None, jobs: JobCounts | None = None) -> int:
    """Runs the demo and returns the exit code: 0, 1 when something is not as it should be, 130 after Ctrl-C.

    Args:
        rtt: round trip of the simulated WAN in seconds, 0 for none.
        upstream: URL of a Faktory to use instead of the embedded one.
        console: where to show it, stdout by default.
        jobs: how many to push; what fits half a minute by default.

    Raises:
        StartError: `upstream` is no URL of a Faktory, or the WAN can't stand before it.
    """
    theirs = None if upstream is None else _checked(upstream, rtt)
    display = Display(console or Console())
    code = 0
    outcome: _Outcome | None = None
    with tempfile.TemporaryDirectory(prefix="faktory-sidecar-demo-") as directory:
        demo = _Demo(display, rtt=rtt, jobs=jobs or JobCounts.fitting(rtt), directory=directory)
        try:
            outcome = trio.run(demo.run, upstream, theirs)
        except* DemoError as group:
            display.say(f"The demo stopped: {_first(group)}")
            code = 1
        except* KeyboardInterrupt:
            display.say("The demo stopped: interrupted")
            code = INTERRUPTED
    if outcome is None:
        display.say("All files of the demo are removed.")
        return code
    display.table(outcome.direct, outcome.through)
    display.say(f"+OK meant: {outcome.promise}. All files of the demo are removed.")
    display.say("Next: SIDECAR_UPSTREAM=tcp://:password@host:7419 faktory-sidecar check")
    return 0


def _checked(url: str, rtt: float) -> UpstreamAddress:
    try:
        address = parse_url(url)
    except ValueError as error:
        raise StartError(f"--upstream {masked_url(url)}: {error}", exit_code=2) from None
    if address.tls and rtt:
        raise StartError("--upstream with TLS: no WAN can be simulated before it, use --rtt 0", exit_code=2)
    return address


async def _check_reachable(address: UpstreamAddress) -> None:
    """One clear line now is better than what a producer says later."""
    try:
        with trio.fail_after(REACH_PATIENCE):
            stream = await trio.open_tcp_stream(address.host, address.port)
    except (OSError, trio.TooSlowError) as error:
        raise DemoError(f"{address.display} can't be reached ({error or 'no answer'})") from error
    await stream.aclose()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of groups."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


class _Demo:
    """One run of the demo."""

    def __init__(self, display: Display, *, rtt: float, jobs: JobCounts, directory: str) -> None:
        self._display = display
        self._rtt = rtt
        self._jobs = jobs
        self._directory = directory
        self._queue = f"demo-{secrets.token_hex(2)}"

    async def run(self, url: str | None, theirs: UpstreamAddress | None) -> _Outcome:
        """All of it, until Ctrl-C or SIGTERM. Without a URL on an embedded Faktory."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt_on_sigterm)
            if url is None or theirs is None:
                embedded = EmbeddedFaktory()
                url = f"tcp://127.0.0.1:{await nursery.start(embedded.run)}"
                theirs = parse_url(url)
                name = "An embedded Faktory (in memory, for this demo only)"
            else:
                embedded = None
                await _check_reachable(theirs)
                name = f"Faktory at {theirs.display}"
            far = url
            if self._rtt:
                wan = SimulatedWan(partial(trio.open_tcp_stream, theirs.host, theirs.port), rtt=self._rtt)
                far = _moved(url, await nursery.start(wan.run))
            distance = f"a simulated WAN of {self._rtt * 1000:g} ms" if self._rtt else "no simulated WAN"
            self._display.say(f"{name}, {distance}, queue {self._queue}")
            same_clock = theirs.host in ("127.0.0.1", "::1", "localhost")
            server = _Server(url, far, ours=embedded is not None, same_clock=same_clock)
            outcome = await self._clean_stages(server)
            nursery.cancel_scope.cancel()
        return outcome

    async def _clean_stages(self, server: _Server) -> _Outcome:
        """The stages, and nothing left on a server of somebody else, however they end."""
        try:
            with self._display.stages(*STAGES) as start:
                return await self._stages(server, start)
        finally:
            if not server.ours:
                with trio.CancelScope(shield=True):
                    await self._sweep(server)

    async def _sweep(self, server: _Server) -> None:
        """Removes our queue; where that fails, says that it is still there."""
        swept = False
        with trio.move_on_after(SWEEP_PATIENCE):
            try:
                await run_program("sweeper", Order(server.near, self._queue), lambda done: None)
                swept = True
            except* DemoError as group:
                self._display.say(str(_first(group)))
        if not swept:
            self._display.say(f"The queue {self._queue} could not be removed.")

    async def _stages(self, server: _Server, start: Callable[[str, int], Stage]) -> _Outcome:
        direct = await self._produce(server.far, start(STAGES[0], self._jobs.direct), first=0)
        settings = {
            "SIDECAR_UPSTREAM": server.far,
            "SIDECAR_LISTEN": "127.0.0.1:0",
            "SIDECAR_HTTP_LISTEN": "off",
            "SIDECAR_JOURNAL_DIR": f"{self._directory}/journal",
            "SIDECAR_ACK": ACK,
            "SIDECAR_LOG_FORMAT": "json",
            "SIDECAR_LOG_LEVEL": "debug",  # the level at which it tells its address
        }
        async with run_sidecar(settings) as sidecar:
            stage = start(STAGES[1], self._jobs.through)
            through = await self._produce(sidecar.url, stage, first=self._jobs.direct)
        ran = await self._work(server, start(STAGES[2], self._jobs.direct + self._jobs.through), direct, through)
        arrivals = {jid: parse_timestamp(text) for jid, text in ran.enqueued.items()} if server.same_clock else None
        return _Outcome(measure(direct, arrivals), measure(through, arrivals), meaning(sidecar.promise))

    async def _produce(self, url: str, stage: Stage, *, first: int) -> Pushed:
        jobs = self._jobs.direct if first == 0 else self._jobs.through
        order = Order(url, self._queue, jobs, first=first)
        pushed = await run_program("producers", order, stage.progress)
        assert isinstance(pushed, Pushed)
        stage.done(f"{jobs:,} jobs  {_span(pushed):.1f} s")
        return pushed

    async def _work(self, server: _Server, stage: Stage, *pushed: Pushed) -> Ran:
        """Runs all jobs, and checks that each ran once with the right result."""
        jids = [jid for each in pushed for jid in each.jids]
        order = Order(server.near, self._queue, len(jids), wid=f"demo-{secrets.token_hex(8)}")
        ran = await run_program("worker", order, stage.progress)
        assert isinstance(ran, Ran)
        wrong = mistakes(jids, ran)
        stage.done(f"{len(dict(ran.results)):,} of {len(jids):,} jobs ran" + ("" if wrong else ", each exactly once"))
        if wrong:
            raise DemoError(wrong)
        return ran


def mistakes(jids: Sequence[str], ran: Ran) -> str:
    """What is wrong with the runs of these jobs, whose numbers are their places; "" when nothing is."""
    runs = Counter(jid for jid, _ in ran.results)
    expected = {jid: compute(*numbers(number)) for number, jid in enumerate(jids)}
    found = {
        "did not run": len(expected.keys() - runs.keys()),
        "ran more than once": sum(count > 1 for count in runs.values()),
        "are not ours": len(runs.keys() - expected.keys()),
        "had a wrong result": sum(expected.get(jid, result) != result for jid, result in ran.results),
        "are left in the queue": ran.left,
    }
    return ", ".join(f"jobs that {what}: {count:,}" for what, count in found.items() if count)


def measure(pushed: Pushed, arrivals: Mapping[str, float] | None) -> Measured:
    """How a producer fared.

    Args:
        arrivals: Unix time at which Faktory had each job; None when its clock can't be compared with ours.
    """
    seconds = _span(pushed)
    delivery = None
    if arrivals is not None:
        waits = [arrivals[jid] - began for jid, began in zip(pushed.jids, pushed.began, strict=True)]
        delivery = statistics.median(waits)
        seconds = max(seconds, max(arrivals[jid] for jid in pushed.jids) - pushed.began[0])
    replies = sorted(pushed.replies)
    p99 = replies[min(len(replies) - 1, len(replies) * 99 // 100)]
    return Measured(len(replies), seconds, statistics.median(replies), p99, delivery)


def _span(pushed: Pushed) -> float:
    """Seconds from a producer's first push to its last reply."""
    return pushed.began[-1] + pushed.replies[-1] - pushed.began[0]


def meaning(promise: str) -> str:
    """The heart of what a sidecar says `+OK` means."""
    return promise.removeprefix("+OK means: ").partition(" (")[0].partition(";")[0]


def _moved(url: str, port: int) -> str:
    """The same server, reached through a port of this machine."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}"))


async def _interrupt_on_sigterm() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            raise KeyboardInterrupt
