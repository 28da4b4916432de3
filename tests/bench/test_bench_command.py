"""`python -m bench` as a command, on the embedded Faktory and the simulated WAN."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from bench.__main__ import RoundTrips
from tests.bench.benchmark import bench

pytestmark = pytest.mark.slow  # each starts processes of its own


@pytest.mark.parametrize(
    ("text", "trips"),
    [
        ("0,1,10,50,100ms", (0.0, 0.001, 0.01, 0.05, 0.1)),
        ("50ms", (0.05,)),
        ("0ms, 0.1s", (0.0, 0.1)),
        ("5,5ms", (0.005,)),
    ],
)
def test_round_trips_share_the_last_unit(text: str, trips: tuple[float, ...]) -> None:
    assert RoundTrips().convert(text, None, None) == trips


@pytest.mark.parametrize("text", ["", "50", "1,2", "ms", "3s", "1,,2ms"])
def test_what_is_no_list_of_round_trips_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        RoundTrips().convert(text, None, None)


def test_rows_are_listed_and_unknown_ones_refused() -> None:
    listed = bench("--list")
    assert listed.returncode == 0
    assert "disk-pushb " in listed.stdout
    wrong = bench("--rows", "disk-1,disk-one")
    assert wrong.returncode == 2
    assert "'disk-one'" in wrong.stderr


def test_somebodys_own_server_is_loaded_only_after_a_yes() -> None:
    asked = bench("--upstream", "tcp://:secret@127.0.0.1:1")
    assert asked.returncode != 0
    assert "[y/N]" in asked.stdout
    assert "secret" not in asked.stdout
    gone = bench("--upstream", "tcp://:secret@127.0.0.1:1", "--yes")
    assert gone.returncode == 1
    assert "The benchmark stopped: tcp://:***@127.0.0.1:1" in gone.stdout


def test_one_command_measures_and_tells(tmp_path: Path) -> None:
    """Without `faktory` and Toxiproxy, with settings around it that it must not look at."""
    nothing = {"XDG_CACHE_HOME": str(tmp_path / "none"), "PATH": str(tmp_path / "none")}
    settings = {"FAKTORY_URL": "tcp://127.0.0.1:1", "SIDECAR_ACK": "nonsense"}
    work, file, plots = tmp_path / "work", tmp_path / "results.json", tmp_path / "plots"
    command = ["--rows", "direct-1,memory-1,disk-pushb,link,sync", "--rtt", "0,5ms"]
    options = ["--rounds", "1", "--seconds", "0.1", "--dir", str(work), "--json", str(file), "--plots", str(plots)]
    done = bench(*command, *options, environ=nothing | settings)
    assert done.returncode == 0, done.stderr
    assert "the embedded Faktory (in memory)" in done.stdout
    assert "links by the simulated WAN" in done.stdout
    assert "PROBLEM" not in done.stdout
    assert "one pyfaktory producer, memory / direct" in done.stdout
    found = json.loads(file.read_text())
    rows = {(one["row"], one["rtt"]) for one in found["rounds"][0]}
    assert {("link", 0.0), ("disk-pushb", 0.005), ("direct-1", 0.005)} <= rows
    assert found["trips"]["0.005"] >= 0.005
    assert "the embedded Faktory" in (plots / "rates.svg").read_text()
    assert list(work.iterdir()) == []
