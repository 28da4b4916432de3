"""The demo, small: what it shows, what it leaves, how it stops."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sidecar.demo.display import milliseconds
from sidecar.demo.orders import Pushed, Ran, compute, numbers
from sidecar.demo.show import JobCounts, meaning, measure, mistakes, run_demo
from sidecar.errors import StartError
from tests.demo.embedded_thread import embedded_in_thread
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.ports import free_port

pytestmark = pytest.mark.slow  # each starts processes of its own

SMALL = JobCounts(direct=4, through=400)


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo puts its files; a FAKTORY_URL that nobody may look at."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("FAKTORY_URL", "tcp://faktory.invalid:1")
    monkeypatch.setenv("SIDECAR_ACK", "nonsense")
    return tmp_path


def demo(*, rtt: float = 0.01, upstream: str | None = None, terminal: bool = False) -> tuple[int, str]:
    """The exit code and what was shown."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    code = run_demo(rtt=rtt, upstream=upstream, console=console, jobs=SMALL)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_it_shows_both_ways_and_counts_every_job(temporary_files: Path) -> None:
    code, shown = demo()
    assert code == 0, shown
    assert "\x1b" not in shown
    first, *rest = shown.splitlines()
    assert first.startswith(
        "An embedded Faktory (in memory, for this demo only), a simulated WAN of 10 ms, queue demo-"
    )
    assert rest[0].startswith("direct               4 jobs  ")
    assert rest[1].startswith("through the sidecar  400 jobs  ")
    assert rest[2] == "worker               404 of 404 jobs ran, each exactly once"
    for word in ("one pyfaktory producer", "jobs/s", "reply p50", "p99", "in Faktory after", "factor"):
        assert word in shown
    assert rest[-2].startswith("+OK meant: ")
    assert rest[-2].endswith(". All files of the demo are removed.")
    assert rest[-1] == "Next: SIDECAR_UPSTREAM=tcp://:password@host:7419 faktory-sidecar check"
    assert list(temporary_files.iterdir()) == []


def test_a_terminal_gets_bars() -> None:
    code, shown = demo(terminal=True)
    assert code == 0, shown
    assert "━" in shown
    assert "404 of 404 jobs ran, each exactly once" in shown


def test_another_server_keeps_all_but_our_queue(faktory: RealFaktory) -> None:
    with faktory.client() as client:
        client.push({"jid": "not-ours", "jobtype": "Add", "args": [1, 2]})
    code, shown = demo(upstream=faktory.url)
    assert code == 0, shown
    assert "embedded" not in shown
    assert f"Faktory at tcp://localhost:{faktory.port}, a simulated WAN of 10 ms" in shown
    assert [job["jid"] for job in faktory.stored()] == ["not-ours"]
    report = faktory.info()["faktory"]
    assert not [name for name in report["queues"] if name.startswith("demo-")]
    assert report["sets"] == {"working": 0, "scheduled": 0, "retries": 0, "dead": 0}


def test_a_password_is_used_and_not_shown() -> None:
    with embedded_in_thread(password="s3cret") as server:
        code, shown = demo(rtt=0, upstream=f"tcp://:s3cret@127.0.0.1:{server.port}")
    assert code == 0, shown
    assert f"Faktory at tcp://:***@127.0.0.1:{server.port}, no simulated WAN" in shown
    assert "s3cret" not in shown


def test_a_wrong_password_stops_it(temporary_files: Path) -> None:
    with embedded_in_thread(password="right") as server:
        code, shown = demo(upstream=f"tcp://:wrong@127.0.0.1:{server.port}")
    assert code == 1
    assert "Invalid password" in shown
    assert list(temporary_files.iterdir()) == []


def test_a_server_that_is_not_there_is_one_line() -> None:
    code, shown = demo(upstream=f"tcp://127.0.0.1:{free_port()}")
    assert code == 1
    assert [line.partition(":")[0] for line in shown.splitlines()] == [
        "The demo stopped",
        "All files of the demo are removed.",
    ]


@pytest.mark.parametrize("url", ["redis://x", "tcp+tls://localhost:7419"])
def test_a_wrong_url_stops_the_start(url: str) -> None:
    with pytest.raises(StartError) as caught:
        demo(upstream=url)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["queue demo-", "direct  "])
def test_a_signal_ends_it_and_all_it_started(temporary_files: Path, number: signal.Signals, moment: str) -> None:
    shown = temporary_files / "shown"
    with shown.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "demo", "--rtt", "10ms"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: moment in shown.read_text(), what=f"the demo to show {moment!r}", timeout=20)
        process.send_signal(number)
        assert process.wait(10) == 130, shown.read_text()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert shown.read_text().splitlines()[-1] == "All files of the demo are removed."
    assert list(temporary_files.iterdir()) == [shown]


def ran(*numbers_run: int, left: int = 0) -> Ran:
    return Ran([(f"jid{n}", compute(*numbers(n))) for n in numbers_run], {}, left)


def test_every_mistake_is_told() -> None:
    jids = ["jid0", "jid1", "jid2", "jid3"]
    assert mistakes(jids, ran(0, 1, 2, 3)) == ""
    assert mistakes(jids, ran(0, 1, 3)) == "jobs that did not run: 1"
    assert mistakes(jids, ran(0, 1, 2, 3, 3)) == "jobs that ran more than once: 1"
    assert mistakes(jids, ran(0, 1, 2, 3, 4)) == "jobs that are not ours: 1"
    assert mistakes(jids, ran(0, 1, 2, 3, left=2)) == "jobs that are left in the queue: 2"
    wrong = Ran([(jid, -99.0) for jid in jids], {}, 0)
    assert mistakes(jids, wrong) == "jobs that had a wrong result: 4"


def test_the_four_kinds_of_the_guide() -> None:
    assert [numbers(number)[0] for number in range(4)] == ["Add", "Subtract", "Multiply", "Divide"]
    assert [compute(kind, 7, 2) for kind in ("Add", "Subtract", "Multiply", "Divide")] == [9, 5, 14, 3.5]


def test_measuring_counts_until_faktory_has_the_last_job() -> None:
    pushed = Pushed(["a", "b"], [100.0, 101.0], [0.5, 0.1])
    alone = measure(pushed, None)
    assert alone.delivery_p50 is None
    assert (alone.seconds, alone.reply_p50, alone.reply_p99) == pytest.approx((1.1, 0.3, 0.5))
    both = measure(pushed, {"a": 102.0, "b": 104.0})
    assert (both.seconds, both.delivery_p50, both.rate) == (4.0, 2.5, 0.5)


def test_few_direct_jobs_on_a_slow_link() -> None:
    assert JobCounts.fitting(0.05).direct == 100
    assert JobCounts.fitting(0.5).direct == 10
    assert JobCounts.fitting(2.0).direct == 4
    assert JobCounts.fitting(0.0).direct == 100


def test_what_ok_meant_is_the_sidecars_own_word() -> None:
    assert meaning("+OK means: fsynced in the journal (0 jobs waiting, bound 1 GiB)") == "fsynced in the journal"
    assert meaning("+OK means: in Faktory, by its own word") == "in Faktory, by its own word"


def test_milliseconds_have_a_decimal_where_it_matters() -> None:
    assert [milliseconds(seconds) for seconds in (0.00034, 0.0099, 0.0519, 1.5)] == [
        "0.3 ms",
        "9.9 ms",
        "52 ms",
        "1,500 ms",
    ]
