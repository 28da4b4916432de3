"""The cost section, on the embedded Faktory and with small numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import cost
from bench.site import Site
from bench.usage import machine_cpu, usage

pytestmark = pytest.mark.alone


@pytest.mark.slow
def test_cost_is_measured_for_sizes_batches_and_backlogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setattr(cost, "SIZES", {"100 B": 0, "10 KB": 10_000})
    monkeypatch.setattr(cost, "BATCHES", (100,))
    monkeypatch.setattr(cost, "BACKLOGS", (1000, 3000))
    monkeypatch.setattr(cost, "SECONDS", 0.2)
    steps: list[str] = []
    site = Site(tmp_path)
    try:
        found = cost.CostMeter(site, 0.005, steps.append).measure()
    finally:
        site.close()
    by_name = {f"{one.part} {one.at}": one for one in found.costs}
    assert list(by_name) == [
        "job size 100 B",
        "job size 10 KB",
        "batch size 100",
        "backlog 1,000",
        "backlog 3,000",
    ]
    assert all(one.jobs > 0 and one.cpu > 0 and one.rss > 1 << 20 for one in found.costs)
    small, large = by_name["job size 100 B"], by_name["job size 10 KB"]
    assert small.up is not None
    assert large.up is not None
    assert 100 < small.up < 1000
    assert 10_000 < large.up < 12_000
    assert large.disk > 10_000
    assert found.drained is not None
    assert found.drained.jobs >= 3000
    assert found.drained.rate > 0
    assert len(steps) == 2 + 1 + 2 + 1


def test_all_cpu_of_the_machine_is_at_least_that_of_its_processes() -> None:
    assert machine_cpu() >= usage([os.getpid()]).cpu > 0
