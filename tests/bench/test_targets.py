"""What is made of measurements: ratios of the same round, their median, plots and JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

from bench.machine import describe
from bench.markdown import PARTS, page_with
from bench.measure import Measured
from bench.plots import Scale, write_plots
from bench.results import Results, cpu_per_million, write_json
from bench.rows import BY_NAME, ROWS, selected
from bench.targets import GOALS, Round, Verdict, verdicts

NEAR = 0.05


def measured(row: str, rate: float, *, rtt: float = NEAR, reply: float = 0.001) -> Measured:
    """A row at so many jobs a second."""
    return Measured(
        row,
        rtt,
        1000,
        1000 / rate,
        1000 / rate,
        p50=reply,
        p99=2 * reply,
        longest=3 * reply,
        cpu={"sidecar": 0.1, "faktory": 0.05, "link": 0.01, "load": 0.2, "others": 9.0},
        rss=64 << 20,
    )


def one_round(*rows: Measured) -> Round:
    return {(row.row, row.rtt): row for row in rows}


def verdict(found: list[Verdict], start: str) -> Verdict:
    return next(one for one in found if one.what.startswith(start))


def test_a_target_compares_rows_of_one_round_and_takes_the_median_of_the_rounds() -> None:
    rounds = [
        one_round(measured("disk-1", 1000 * factor), measured("direct-1", slowness * 10))
        for factor, slowness in ((1, 1), (2, 1), (9, 3))
    ]
    found = verdict(verdicts(rounds, main=NEAR), "one pyfaktory producer, disk / direct")
    assert found.measured == pytest.approx(200)
    assert found.lowest == pytest.approx(100)
    assert found.highest == pytest.approx(300)
    assert found.met
    assert found.reached


@pytest.mark.parametrize(("rate", "met", "reached"), [(899, False, False), (901, True, False), (1501, True, True)])
def test_a_ratio_meets_its_bound_or_not(rate: float, met: bool, reached: bool) -> None:
    found = verdicts([one_round(measured("disk-1", rate), measured("direct-1", 10))], main=NEAR)
    assert (found[0].met, found[0].reached) == (met, reached)


@pytest.mark.parametrize(
    ("reply", "met", "reached"), [(0.0041, False, False), (0.0029, True, False), (0.0019, True, True)]
)
def test_a_bound_from_above_is_met_by_less(reply: float, met: bool, reached: bool) -> None:
    rows = measured("paced", 1000, reply=reply), measured("sync", 1000, reply=0.001)
    found = verdict(verdicts([one_round(*rows)], main=NEAR), "reply p50")
    assert (found.met, found.reached) == (met, reached)


def test_some_targets_are_looked_at_at_every_round_trip() -> None:
    rows = [measured(name, 100, rtt=rtt) for rtt in (0.0, 0.01, NEAR) for name in ("disk-pushb", "link")]
    found = [one.at for one in verdicts([one_round(*rows)], main=NEAR) if "link's limit" in one.what]
    assert found == [0.0, 0.01, NEAR]


def test_a_target_is_not_judged_at_another_round_trip() -> None:
    rows = measured("disk-1", 1e6, rtt=0.01), measured("direct-1", 1, rtt=0.01)
    (found,) = verdicts([one_round(*rows)], main=0.01)
    assert not found.judged
    assert not found.met


def test_a_round_that_lacks_a_row_doesnt_count() -> None:
    whole = one_round(measured("disk-1", 1000), measured("direct-1", 10))
    (found,) = verdicts([whole, one_round(measured("disk-1", 1))], main=NEAR)
    assert found.measured == pytest.approx(100)


def test_every_target_is_made_of_rows_that_there_are() -> None:
    assert {name for goal in GOALS for name in goal.needs} <= BY_NAME.keys()


def test_names_of_rows_are_unique_and_select_in_the_order_of_the_table() -> None:
    assert len(BY_NAME) == len(ROWS)
    assert [row.name for row in selected(["link", "direct-1"])] == ["direct-1", "link"]
    with pytest.raises(KeyError, match="no-such"):
        selected(["link", "no-such"])


def test_what_others_used_is_no_cost_of_ours() -> None:
    assert cpu_per_million([measured("disk-1", 100)], ("sidecar", "load")) == pytest.approx(300)


def test_a_scale_holds_its_values_between_powers_of_ten() -> None:
    scale = Scale.around([3, 4000], 0, 100)
    assert scale.ticks() == [1, 10, 100, 1000, 10000]
    assert scale.place(1) == pytest.approx(0)
    assert scale.place(100) == pytest.approx(50)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Three rows at two round trips."""
    rows = [
        measured(name, rate / (1 + 100 * rtt), rtt=rtt)
        for rtt in (0.0, NEAR)
        for name, rate in (("link", 40_000), ("disk-1", 3000), ("direct-1", 9000))
    ]
    return Results(
        machine=describe(tmp_path),
        faktory="Faktory <1.10>",
        links="Toxiproxy",
        trips={0.0: 0.0001, NEAR: 0.051},
        main=NEAR,
        rounds=[rows, rows],
        verdicts=verdicts([{(row.row, row.rtt): row for row in rows}], main=NEAR),
        cost=None,
        skipped={"disk-go-1": "no Go"},
        problems=[],
        seconds=1.0,
    )


def test_plots_are_well_formed_and_say_what_was_measured(results: Results, tmp_path: Path) -> None:
    files = write_plots(results, tmp_path / "plots")
    assert [file.name for file in files] == ["rates.svg", "replies.svg"]
    for file in files:
        texts = [element.text or "" for element in ElementTree.parse(file).iter() if element.tag.endswith("}text")]
        assert any("Faktory <1.10>" in text and "Toxiproxy" in text for text in texts)
        assert any("disk" in text for text in texts)


def test_a_page_gets_its_figures_and_keeps_its_words(results: Results) -> None:
    places = "".join(f"<!-- bench:{name} -->\nold {name}\n<!-- bench:end -->\n" for name in PARTS)
    page = page_with(f"# Title\n{places}The end.\n", results)
    assert page.startswith("# Title\n<!-- bench:")
    assert page.endswith("<!-- bench:end -->\nThe end.\n")
    assert "old " not in page
    assert "| one pyfaktory producer, direct | 1,500 | 1.00 ms | 1 |" in page
    assert "| direct, one pyfaktory producer | 9,000 | 1,500 |" in page
    assert page_with(page, results) == page


def test_one_round_trip_makes_no_line(results: Results, tmp_path: Path) -> None:
    alone = msgspec.structs.replace(results, trips={NEAR: 0.051})
    assert [file.name for file in write_plots(alone, tmp_path)] == ["replies.svg"]


def test_the_json_holds_medians_targets_and_every_measurement(results: Results, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_json(results, file)
    found = json.loads(file.read_text())
    assert len(found["rounds"]) == 2
    medians = {(row["row"], row["rtt"]): row["jobs_per_second"] for row in found["medians"]}
    assert medians["link", 0.0] == pytest.approx(40_000)
    assert {"what", "measured", "met", "reached"} <= found["verdicts"][0].keys()
    assert found["machine"]["cores"] >= 1
