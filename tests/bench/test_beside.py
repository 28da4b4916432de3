"""This checkout beside another commit: how pairs are judged, and that both are really measured."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from bench.beside import CONFIDENCE, HERE, checkout, interval
from bench.children import BenchError
from tests.bench.benchmark import bench


def test_an_interval_holds_the_true_median_as_often_as_it_says() -> None:
    dice = random.Random(4)
    for count in (7, 9, 15):
        held = [interval([dice.lognormvariate(0, 0.3) for _ in range(count)]) for _ in range(2_000)]
        share = sum(one.low <= 1 <= one.high for one in held) / len(held)
        assert held[0].sure >= CONFIDENCE
        assert share > held[0].sure - 0.02, (count, share, held[0].sure)


def test_few_pairs_say_how_sure_they_are() -> None:
    one, four = interval([1.2]), interval([1.0, 4.0, 3.0, 2.0])
    assert (one.median, one.low, one.high, one.sure) == (1.2, 1.2, 1.2, 0.0)
    assert (four.median, four.low, four.high, four.sure) == (2.5, 1.0, 4.0, 0.875)


def in_git() -> bool:
    return subprocess.run(["git", "-C", HERE, "rev-parse"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not in_git(), reason="this is no checkout of a repository")
def test_a_commit_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no-such-commit can't be checked out"), checkout("no-such-commit", tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not in_git(), reason="this is no checkout of a repository")
def test_both_commits_are_measured_and_nothing_stays(tmp_path: Path) -> None:
    nothing = {"XDG_CACHE_HOME": str(tmp_path / "none"), "PATH": "/usr/bin:/bin"}
    command = ["--beside", "HEAD", "--rows", "memory-1,disk-pushb", "--rounds", "2", "--seconds", "0.1"]
    done = bench(*command, "--dir", str(tmp_path / "work"), environ=nothing)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "This checkout beside HEAD, 0 ms, 2 pairs" in done.stdout
    assert "disk-pushb" in done.stdout
    assert list((tmp_path / "work").iterdir()) == []
    listed = subprocess.run(["git", "-C", HERE, "worktree", "list"], capture_output=True, text=True, check=True)
    assert "beside-" not in listed.stdout
