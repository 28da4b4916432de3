"""docs/metrics.md, the alert rules and the dashboard against the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.core import Metric

from sidecar.app.wiring import Sidecar
from sidecar.config import load
from sidecar.journal import Journal
from sidecar.logs import defect
from sidecar.ops.exposition import PREFIX, Exposition

ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}
LABELS_OF_HISTOGRAMS = {"le"}


@pytest.fixture
async def exposition(tmp_path: Path, defects_expected: None) -> Exposition:
    """The metrics of a sidecar with a journal, and with a defect, which tells where."""
    defect("a part", ValueError())
    environment = {"SIDECAR_UPSTREAM": "tcp://127.0.0.1:1", "SIDECAR_JOURNAL_DIR": str(tmp_path)}
    settings = load(environment, {}).settings
    journal = Journal.open(tmp_path, upstream=settings.upstream.identity, max_bytes=settings.journal_max_bytes)
    return Exposition(Sidecar(settings, journal).gauge)


@pytest.fixture
async def families(exposition: Exposition) -> list[Metric]:
    """Every metric that it has."""
    return exposition.families()


def samples(family: Metric) -> Iterator[str]:
    """The names of its samples."""
    for suffix in SUFFIXES[family.type]:
        yield family.name + suffix


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric by its name, from the sections of docs/metrics.md."""
    found: dict[str, tuple[str, set[str]]] = {}
    for section in re.split(r"^### ", (ROOT / "docs" / "metrics.md").read_text(), flags=re.MULTILINE)[1:]:
        section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
        name, kind = re.match(r"`(\w+)`\n\n(\w+)\. ", section).groups()  # type: ignore[union-attr]
        assert name not in found, f"{name} has two sections"
        found[name] = (kind.lower(), set(re.findall(r"^- `(\w+)`: ", section, flags=re.MULTILINE)))
    return found


async def test_every_metric_has_its_section_and_every_section_its_metric(families: list[Metric]) -> None:
    told = documented()
    real: dict[str, tuple[str, set[str]]] = {}
    for family in families:
        assert family.documentation
        labels = {label for sample in family.samples for label in sample.labels} - LABELS_OF_HISTOGRAMS
        if family.type == "histogram":
            real[family.name] = ("histogram", labels)
        else:
            kind = "gauge" if family.type == "info" else family.type
            real[family.name + SUFFIXES[family.type][0]] = (kind, labels)
    assert told == real


@pytest.mark.parametrize("file", ["alerts.yaml", "alerts_test.yaml", "dashboard.json"])
async def test_every_metric_that_is_named_exists(families: list[Metric], file: str) -> None:
    text = (OBSERVABILITY / file).read_text()
    named = set(re.findall(rf"{PREFIX}_\w+", text))
    known = {name for family in families for name in samples(family)}
    assert named
    assert named <= known


def test_the_dashboard_is_whole() -> None:
    dashboard: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFGH"][: len(panel["targets"])]
        assert all("$instance" in target["expr"] for target in panel["targets"])
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"


def test_prometheus_takes_the_rules_and_they_fire_when_they_should(promtool: Path) -> None:
    for arguments in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([promtool, *arguments], cwd=OBSERVABILITY, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (OBSERVABILITY / "alerts.yaml").read_text()))
    tests = (OBSERVABILITY / "alerts_test.yaml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n +exp_alerts:", tests))
    assert fired == alerts


def test_prometheus_understands_every_query_of_the_dashboard(promtool: Path, tmp_path: Path) -> None:
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_promtool_finds_nothing_wrong_with_the_exposition(exposition: Exposition, promtool: Path) -> None:
    done = await trio.run_process(
        [promtool, "check", "metrics"], stdin=exposition.text(), capture_stdout=True, capture_stderr=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
