"""A real Prometheus scrapes a real sidecar, and its alerts fire."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import SidecarFactory
from tests.ops.asking import ops_port, wait_beside_others
from tests.real.polling import wait_for
from tests.real.ports import free_port

RULES = Path(__file__).resolve().parents[2] / "deploy" / "observability" / "alerts.yaml"


@pytest.mark.slow
def test_dead_letters_and_the_link_reach_prometheus(
    faktory_factory: Any, sidecar_process: SidecarFactory, promtool: Path, tmp_path: Path
) -> None:
    server = shutil.which("prometheus")
    assert server is not None, "Debian's package brings both"
    faktory = faktory_factory()
    settings = {"SIDECAR_HTTP_LISTEN": "off", "SIDECAR_OPS_LISTEN": "127.0.0.1:0"}
    sidecar = sidecar_process(faktory.url, settings, program="tests.real.impatient")
    faktory.redis("SET", "q:poisoned", "no list")
    faktory.redis("SET", "poisoned", "no list")
    with sidecar.client() as client:
        client.push({"jid": "prometheus-1", "jobtype": "T", "args": [], "queue": "poisoned"})
        wait_beside_others(client, lambda: sidecar.events("job_dead"), what="a dead letter")

    config = tmp_path / "prometheus.yml"
    target = f"127.0.0.1:{ops_port(sidecar)}"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "scrape_configs": [{"job_name": "faktory-sidecar", "static_configs": [{"targets": [target]}]}],
            }
        )
    )
    port = free_port()
    command = [server, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        alert = wait_for(lambda: _firing(port, "FaktorySidecarDeadLetters"), what="the alert fires", timeout=40)
        assert alert["labels"]["instance"] == target
        assert alert["annotations"]["summary"] == f"1 dead letters in {target}"
        assert _value(port, "faktory_sidecar_link_up") == "1"
        assert _value(port, 'up{job="faktory-sidecar"}') == "1"
    finally:
        process.terminate()
        process.wait(10)


def _ask(port: int, path: str) -> Any:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)["data"]
    except (urllib.error.URLError, ConnectionError):
        return None  # it is still starting


def _firing(port: int, name: str) -> dict[str, Any] | None:
    alerts = (_ask(port, "alerts") or {"alerts": []})["alerts"]
    return next((each for each in alerts if each["labels"]["alertname"] == name and each["state"] == "firing"), None)


def _value(port: int, query: str) -> str | None:
    found = _ask(port, f"query?query={quote(query)}")["result"]
    return found[0]["value"][1] if found else None
