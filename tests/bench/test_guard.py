"""A guard against clear regressions of speed: ratios of one run on the real Faktory, with wide margins.

A shared machine is noisy, so each figure is the best of three rounds, and the bounds are far from what a quiet machine
shows (docs/performance.md). CPU time for each job is compared with what pyfaktory itself needs for it on the same
machine: that hardly depends on what else runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real.sidecar_command import clean_environment
from tests.real.toxiproxy_server import Toxiproxy

pytestmark = pytest.mark.alone

ROWS = "direct-1,disk-1,local-16,memory-16,disk-16,link,disk-pushb,guide,idle"
ROUNDS = 3
TIMEOUT = 240.0  # seconds

Measured = dict[str, Any]
Round = dict[str, Measured]


def acknowledged(row: Measured) -> float:
    return float(row["jobs"] / row["seconds"])


def delivered(row: Measured) -> float:
    return float(row["jobs"] / row["delivered_seconds"])


def cpu(row: Measured, part: str) -> float:
    return float(row["cpu"][part] / row["jobs"])


AT_LEAST: dict[str, tuple[float, Callable[[Round], float]]] = {
    "one producer: disk / direct": (15, lambda r: acknowledged(r["disk-1"]) / acknowledged(r["direct-1"])),
    "16 producers: memory / local": (0.2, lambda r: acknowledged(r["memory-16"]) / acknowledged(r["local-16"])),
    "16 producers: disk / local": (0.1, lambda r: acknowledged(r["disk-16"]) / acknowledged(r["local-16"])),
    "PUSHB: disk / the link's limit": (0.25, lambda r: delivered(r["disk-pushb"]) / delivered(r["link"])),
    "PUSHB: disk / the guide's way": (4, lambda r: delivered(r["disk-pushb"]) / delivered(r["guide"])),
}
AT_MOST: dict[str, tuple[float, Callable[[Round], float]]] = {
    "CPU for a job: sidecar, memory / pyfaktory": (
        2.5,
        lambda r: cpu(r["memory-16"], "sidecar") / cpu(r["memory-16"], "load"),
    ),
    "CPU for a job: sidecar, disk / pyfaktory": (6, lambda r: cpu(r["disk-16"], "sidecar") / cpu(r["disk-16"], "load")),
    "idle RSS, MiB": (100, lambda r: float(r["idle"]["rss"]) / 2**20),
    "idle CPU, % of a core": (2, lambda r: 100 * float(r["idle"]["cpu"]["sidecar"]) / float(r["idle"]["seconds"])),
}


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT + 60)
def test_no_clear_regression(faktory_parts: None, toxiproxy_server: Toxiproxy, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "--rows", ROWS, "--rtt", "50ms"]
    options = ["--rounds", str(ROUNDS), "--seconds", "1", "--json", str(file), "--dir", str(tmp_path)]
    done = subprocess.run(
        [*command, *options],
        env=clean_environment({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())
    assert results["faktory"].startswith("Faktory ")
    assert results["problems"] == []
    rounds: list[Round] = [{row["row"]: row for row in measured} for measured in results["rounds"]]
    failures = []
    for what, (bound, value) in AT_LEAST.items():
        best = max(value(one) for one in rounds)
        print(f"{what}: {best:.2f}, at least {bound:g}")
        failures += [what] if best < bound else []
    for what, (bound, value) in AT_MOST.items():
        best = min(value(one) for one in rounds)
        print(f"{what}: {best:.2f}, at most {bound:g}")
        failures += [what] if best > bound else []
    assert not failures, f"clear regressions: {', '.join(failures)}"
