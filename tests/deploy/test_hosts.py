"""What runs without Kubernetes: the Compose file, the systemd unit, and the locks of the image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sidecar
from sidecar.config import load
from tests.real.faktory_server import RealFaktory
from tests.real.raw_client import RawClient
from tests.real.toxiproxy_server import Toxiproxy

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "faktory-sidecar.service"
MOST_EXPOSED = "20"
"""Of 100, as systemd-analyze counts: 11 is what the unit has."""
ROUND_TRIP = 0.05
"""Seconds, of the Compose file's WAN."""
MARGIN = 5.0
"""Seconds between the end of a drain and SIGKILL."""


@pytest.fixture
def project(manifest_checker: Path) -> dict[str, Any]:
    """The Compose file, as Compose reads it."""
    done = subprocess.run([manifest_checker, "compose", DEPLOY / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def pinned(module: str, part: str) -> str:
    """The version of a Go module that the tests run against, `1.10.0`."""
    match = re.search(rf"{re.escape(module)} v([\d.]+)", (ROOT / "tests" / "real" / part / "go.mod").read_text())
    assert match is not None
    return match[1]


def test_compose_has_the_whole_path(project: dict[str, Any]) -> None:
    services = project["services"]
    assert services.keys() == {"faktory", "wan", "wan-delay", "sidecar", "producer", "worker"}
    [proxy] = json.loads(project["configs"]["toxiproxy"]["content"])
    assert proxy["upstream"] == "faktory:7419"
    assert services["sidecar"]["environment"]["SIDECAR_UPSTREAM"] == f"tcp://wan:{proxy['listen'].rpartition(':')[2]}"
    for name in ("producer", "worker"):
        assert services[name]["network_mode"] == "service:sidecar"
        assert services[name]["environment"]["FAKTORY_URL"] == "tcp://localhost:7419"
        assert services[name]["depends_on"]["sidecar"]["condition"] == "service_healthy"


def test_compose_runs_what_the_tests_run(project: dict[str, Any]) -> None:
    services = project["services"]
    assert services["faktory"]["image"].endswith(f":{pinned('github.com/contribsys/faktory', 'faktory')}")
    assert services["wan"]["image"].endswith(f":{pinned('github.com/Shopify/toxiproxy/v2', 'toxiproxy')}")
    assert services["sidecar"]["image"] == f"faktory-sidecar:{sidecar.__version__}"
    for name in ("producer", "worker", "wan-delay"):
        script = Path(services[name]["command"][1])
        assert (DEPLOY / "examples" / script.name).is_file()


def test_compose_confines_the_sidecar_and_lets_it_drain(project: dict[str, Any]) -> None:
    service = project["services"]["sidecar"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    loaded = load(service["environment"], {})
    assert loaded.warnings == ()
    assert float(service["stop_grace_period"].removesuffix("s")) >= loaded.settings.drain_timeout + MARGIN


def test_the_delay_of_compose_is_one_of_toxiproxy(
    project: dict[str, Any], toxiproxy: Toxiproxy, faktory: RealFaktory
) -> None:
    link = toxiproxy.link(faktory.port)
    words = project["services"]["wan-delay"]["command"]
    script = DEPLOY / "examples" / Path(words[1]).name
    options = [toxiproxy.api if word == "http://wan:8474" else word for word in words[2:]]
    for _ in range(2):  # a second run, at the next `up`, changes nothing
        subprocess.run([sys.executable, script, *options], check=True, capture_output=True)
        toxics = toxiproxy.call("GET", f"/proxies/{link.name}/toxics")
        assert {each["stream"]: each["attributes"]["latency"] for each in toxics} == {"upstream": 25, "downstream": 25}
    started = time.monotonic()
    RawClient(link.port).close()
    assert time.monotonic() - started >= ROUND_TRIP


def unit_values(name: str) -> list[str]:
    """The values of one directive of the unit."""
    return [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]


def test_the_unit_lets_it_drain_and_names_real_settings(tmp_path: Path) -> None:
    (tmp_path / "upstream-password").write_text("secret")
    environ = dict(pair.split("=", 1) for pair in unit_values("Environment"))
    environ = {name: value.replace("%d", str(tmp_path)).replace("%S", "/var/lib") for name, value in environ.items()}
    lines = (DEPLOY / "systemd" / "faktory-sidecar.env").read_text().splitlines()
    environ |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    loaded = load(environ, {})
    assert loaded.warnings == ()
    assert loaded.settings.upstream.password is not None
    [limit] = unit_values("TimeoutStopSec")
    assert float(limit) >= loaded.settings.drain_timeout + MARGIN
    assert loaded.settings.journal_dir.is_relative_to(f"/var/lib/{unit_values('StateDirectory')[0]}")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_accepts_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    installed = tmp_path / UNIT.name
    program = Path(sys.executable).parent / "faktory-sidecar"
    installed.write_text(UNIT.read_text().replace("/opt/faktory-sidecar/bin/faktory-sidecar", str(program)))
    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed], capture_output=True, text=True, check=False
    )
    assert (verify.returncode, verify.stderr) == (0, "")
    security = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", UNIT],
        capture_output=True,
        text=True,
    )
    assert security.returncode == 0, security.stdout


def locked(name: str) -> dict[str, str]:
    """Package -> version, from one of the image's locks; every one of them with hashes."""
    text = (DEPLOY / "image" / f"{name}.lock").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    found: dict[str, str] = {}
    for entry in entries:
        match = re.match(r"([\w.-]+)==([\w.+!-]+)", entry)
        assert match is not None, entry
        assert "--hash=sha256:" in entry, entry
        found[canonicalize_name(match[1])] = match[2]
    return found


@pytest.mark.parametrize(
    ("lock", "section", "key"), [("runtime", "project", "dependencies"), ("build", "build-system", "requires")]
)
def test_locks_fit_what_the_project_asks_for(lock: str, section: str, key: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    versions = locked(lock)
    for text in project[section][key]:
        requirement = Requirement(text)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{text}: deploy/image/lock wasn't run"


@pytest.mark.parametrize("lock", ["runtime", "build"])
def test_locks_name_no_index(lock: str) -> None:
    assert "://" not in (DEPLOY / "image" / f"{lock}.lock").read_text()


def test_the_stand_in_for_the_base_has_its_python_and_debian() -> None:
    base = re.search(r"^ARG BASE=.*python:([\d.]+)-slim-(\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    build = (DEPLOY / "image" / "build").read_text()
    assert base is not None
    assert f"PYTHON_VERSION={base[1]} " in build
    assert f"RELEASE={base[2]}\n" in build
