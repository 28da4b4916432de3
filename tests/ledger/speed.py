"""What a long backlog costs: `python -m tests.ledger.speed [--jobs 1000000]`.

In one run, beside a raw client that pipelines without bound (the link's limit): the cost of a push at backlogs of
3,000, 100,000 and `--jobs`, their draining, a start with all of them on a cold page cache, memory, and the disk
afterwards. All figures hang on the machine and on what else it does; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ledger.book import QUEUE, wait_until
from tests.real.faktory_server import RealFaktory
from tests.real.raw_client import RawClient
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Link, Toxiproxy

ROUND_TRIP = 50  # milliseconds
JOB_BYTES = 1_000
BULK = 1_000
SERIAL = 1_500
"""Serial pushes that are timed at each backlog."""
ROUNDS = 4
"""Times that it is measured; the best counts, because other programs only make it worse."""
LIMIT_JOBS = 60_000
"""Jobs that the raw client pushes to find the link's limit."""
RSS_TARGET = 150.0  # MiB


def job(number: int) -> str:
    """A job of about 1 KB."""
    head = f'{{"jid":"speed-{number:010d}","queue":"{QUEUE}","jobtype":"Entry","args":["speed-{number:010d}","'
    return head + "x" * (JOB_BYTES - len(head) - 3) + '"]}'


def bulks(first: int, jobs: int) -> Iterator[bytes]:
    """`PUSHB` lines."""
    for start in range(first, first + jobs, BULK):
        yield b"PUSHB [" + ",".join(job(n) for n in range(start, min(start + BULK, first + jobs))).encode() + b"]\r\n"


def fill(port: int, first: int, jobs: int) -> float:
    """Push in bulk, one command after the other; seconds."""
    started = time.monotonic()
    with RawClient(port, timeout=30) as client:
        for line in bulks(first, jobs):
            reply = client.raw_call(line)
            assert reply == b"$2\r\n{}\r\n", reply
    return time.monotonic() - started


def serial(process: SidecarProcess, first: int) -> tuple[float, float]:
    """Microseconds a job, one push after the other: by the clock (the median of fifteen pieces), and of CPU."""
    pieces: list[float] = []
    with RawClient(process.port, timeout=30) as client:
        used = cpu_seconds(process)
        for piece in range(15):
            lines = [f"PUSH {job(first + piece * 100 + n)}\r\n".encode() for n in range(SERIAL // 15)]
            started = time.perf_counter()
            for line in lines:
                assert client.raw_call(line) == b"+OK\r\n"
            pieces.append((time.perf_counter() - started) / len(lines) * 1e6)
        used = cpu_seconds(process) - used
    return sorted(pieces)[len(pieces) // 2], used / SERIAL * 1e6


def cpu_seconds(process: SidecarProcess) -> float:
    """What the process has used so far: unlike the clock, other programs don't touch it much."""
    stat = Path(f"/proc/{process.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def link_limit(port: int) -> float:
    """Jobs a second of a raw client that sends `PUSHB` of 100 without waiting."""
    lines = [
        b"PUSHB [" + ",".join(job(n) for n in range(s, s + 100)).encode() + b"]" for s in range(0, LIMIT_JOBS, 100)
    ]
    with RawClient(port, timeout=60) as client:
        started = time.monotonic()
        owed = 0
        for line in lines:
            client.send(line)
            owed += 1
            if owed >= 128:
                client.raw_reply()
                owed -= 1
        for _ in range(owed):
            assert client.raw_reply() == b"$2\r\n{}\r\n"
        return LIMIT_JOBS / (time.monotonic() - started)


def stored(server: RealFaktory) -> int:
    """Jobs that Faktory has."""
    return int(str(server.redis("LLEN", f"q:{QUEUE}")))


def rss(process: SidecarProcess, what: str = "VmRSS") -> float:
    """MiB of memory, now or (`VmHWM`) at most."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1024


def disk_use(directory: Path) -> float:
    """MiB of all files of the journal."""
    return sum(file.stat().st_blocks * 512 for file in directory.iterdir() if file.is_file()) / 2**20


def drop_page_cache(directory: Path) -> str:
    """Forget the journal's pages; says how."""
    os.sync()
    for file in directory.iterdir():
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    return "its pages dropped from the cache"


class Speed:
    """One run. Args: how many jobs the largest backlog has; a directory on a real disk."""

    def __init__(self, jobs: int, room: Path) -> None:
        self._jobs = jobs
        self._room = room
        self._number = 0
        self._lives = 0
        self._missed: list[str] = []

    def run(self, server: RealFaktory, link: Link) -> list[str]:
        """Measure everything; returns what missed its target."""
        say(f"{self._jobs:,} jobs of {JOB_BYTES:,} bytes, {ROUND_TRIP} ms round trip")
        say(f"{os.cpu_count()} CPUs, load {load()}")
        limit = self._limit(server, link)
        link.disable()
        process = self._start(server, link)
        self._costs(process)
        self._check("memory with the backlog (MiB)", rss(process), at_most=RSS_TARGET)
        self._check("memory at most so far (MiB)", rss(process, "VmHWM"), at_most=RSS_TARGET)
        say(f"disk use with the backlog: {disk_use(self._journal):,.0f} MiB")
        process.kill()
        say(f"killed; {drop_page_cache(self._journal)}")
        started = time.monotonic()
        process = self._start(server, link)
        self._check("start with the backlog (s)", time.monotonic() - started, at_most=2.0)
        self._check("memory after the start (MiB)", rss(process), at_most=RSS_TARGET)
        self._drain(process, server, link, limit)
        process.terminate()
        assert process.wait(90) == 0
        return self._missed

    @property
    def _journal(self) -> Path:
        return self._room / "journal"

    def _limit(self, server: RealFaktory, link: Link) -> float:
        limit = link_limit(link.port)
        say(f"the link's limit (a raw client, pipelined): {limit:,.0f} jobs/s")
        server.flush()
        return limit

    def _costs(self, process: SidecarProcess) -> None:
        clock: list[float] = []
        cpu: list[float] = []
        serial(process, self._number)  # warms everything up
        self._number += SERIAL
        for backlog in sorted({3_000, 100_000, self._jobs}):
            if (jobs := backlog - self._number) > 0:
                seconds = fill(process.port, self._number, jobs)
                self._number += jobs
                say(f"filled up to {backlog:,} jobs at {jobs / seconds:,.0f} jobs/s, {rss(process):.0f} MiB")
            for _ in range(ROUNDS):
                one, other = serial(process, self._number)
                self._number += SERIAL
                clock.append(one)
                cpu.append(other)
            best = min(clock[-ROUNDS:]), min(cpu[-ROUNDS:])
            clock[-ROUNDS:], cpu[-ROUNDS:] = [best[0]], [best[1]]
            say(f"backlog {backlog:>9,}: a serial push takes {best[0]:,.0f} us, {best[1]:,.0f} us of CPU")
        self._check(
            "cost of a push by the clock, at the longest over at the shortest", clock[-1] / clock[0], at_most=1.15
        )
        self._check("cost of a push in CPU time, at the longest over at the shortest", cpu[-1] / cpu[0], at_most=1.15)

    def _drain(self, process: SidecarProcess, server: RealFaktory, link: Link, limit: float) -> None:
        link.enable()
        wait_until(lambda: stored(server) > 0, "the link is up", timeout=60)
        first, started, most = stored(server), time.monotonic(), 0.0
        while stored(server) < self._number:
            most = max(most, rss(process))
            time.sleep(0.2)
            assert time.monotonic() - started < 900, "it does not drain"
        rate = (self._number - first) / (time.monotonic() - started)
        say(f"drained {self._number:,} jobs at {rate:,.0f} jobs/s")
        after = self._limit(server, link)
        say(f"(the link's limit before and after: {limit:,.0f}, {after:,.0f})")
        self._check("draining over the link's limit", rate / ((limit + after) / 2), at_least=0.8)
        self._check("memory while draining (MiB)", most, at_most=RSS_TARGET)
        floor = 40.0
        seconds = wait_until(lambda: disk_use(self._journal) < floor, "disk use is back at its floor", timeout=180)
        say(f"disk use back at {disk_use(self._journal):,.0f} MiB (the reserve is 16) {seconds:.0f} s later")

    def _start(self, server: RealFaktory, link: Link) -> SidecarProcess:
        self._lives += 1
        settings = {
            "SIDECAR_UPSTREAM": server.url_at(link.port),
            "SIDECAR_ACK": "disk",
            "SIDECAR_HTTP_LISTEN": "off",
            "SIDECAR_JOURNAL_DIR": str(self._journal),
            "SIDECAR_JOURNAL_MAX_BYTES": "2GiB",
        }
        process = SidecarProcess(self._room / f"life{self._lives}", settings)
        process.wait_until_listening()
        return process

    def _check(self, what: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        fine = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        target = f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}"
        say(f"{'ok    ' if fine else 'MISSED'} {what}: {value:.2f} ({target})")
        if not fine:
            self._missed.append(what)


def say(line: str) -> None:
    """One line of the report, at once."""
    print(line, flush=True)


def load() -> str:
    """What else the machine does."""
    return " ".join(f"{figure:.1f}" for figure in os.getloadavg())


def main() -> int:
    """Run; 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.ledger.speed", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="of the largest backlog (default 1,000,000)")
    parser.add_argument("--dir", type=Path, default=None, help="a directory on a real disk (default: a temporary one)")
    options = parser.parse_args()
    server, toxiproxy = RealFaktory(), Toxiproxy()
    with tempfile.TemporaryDirectory(prefix="speed-", dir=options.dir) as room:
        try:
            server.start()
            toxiproxy.start()
            missed = Speed(options.jobs, Path(room)).run(server, toxiproxy.link(server.port, round_trip=ROUND_TRIP))
        finally:
            toxiproxy.stop()
            server.dispose()
    say(f"load {load()}; " + (f"missed: {json.dumps(missed)}" if missed else "every target was met"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
