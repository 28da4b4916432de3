"""Health, metrics and status over HTTP: on which bind, with which token, and by the healthcheck command."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SidecarFactory
from tests.ops.asking import get, health, ops_port
from tests.real.ports import free_port
from tests.real.sidecar_command import SidecarProcess, clean_environment

HEALTH = ("/startupz", "/livez", "/readyz")
SHOWN = ("/metrics", "/", "/status.json", "/status/events")
TOKEN = "a-token-of-some-length"


@pytest.fixture
def sidecar(sidecar_process: SidecarFactory) -> SidecarProcess:
    """One with a token, and an operator's bind; its Faktory isn't there."""
    settings = {"SIDECAR_HTTP_TOKEN": TOKEN, "SIDECAR_OPS_LISTEN": "127.0.0.1:0"}
    return sidecar_process(f"tcp://127.0.0.1:{free_port()}", settings)


def test_health_needs_no_token_and_the_rest_does(sidecar: SidecarProcess) -> None:
    for path in HEALTH:
        assert health(sidecar.http_port, path)[0] == 200
    for path in SHOWN:
        assert get(sidecar.http_port, path)[0] == 401
    assert get(sidecar.http_port, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert get(sidecar.http_port, "/status.json", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_the_operators_bind_has_these_and_nothing_else(sidecar: SidecarProcess) -> None:
    port = ops_port(sidecar)
    for path in (*HEALTH, "/metrics", "/", "/status.json"):
        status, headers, _ = get(port, path)
        assert status == 200
        assert headers["cache-control"] == "no-store"
    for path in ("/jobs", "/jobs/batch", "/docs", "/openapi.json", "/status", "/../etc/passwd"):
        status, headers, body = get(port, path)
        assert (status, headers["content-type"]) == (404, "application/problem+json")
        assert json.loads(body)["status"] == 404
    for method in ("POST", "DELETE"):
        assert _answer(port, f"{method} /readyz HTTP/1.1\r\nHost: localhost\r\n").startswith(b"HTTP/1.1 405")
    head = _answer(port, "HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n\r\n")


def test_foreign_pages_get_nothing_but_a_followed_link_does(sidecar: SidecarProcess) -> None:
    port = ops_port(sidecar)
    assert get(port, "/status.json", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty"})[0] == 403
    assert get(port, "/status/events", Origin="https://evil.example")[0] == 403
    assert get(port, "/status.json", Host="evil.example")[0] == 421
    assert get(port, "/", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"})[0] == 200


def test_it_works_without_the_other_http(sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(
        f"tcp://127.0.0.1:{free_port()}", {"SIDECAR_HTTP_LISTEN": "off", "SIDECAR_OPS_LISTEN": "127.0.0.1:0"}
    )
    assert health(ops_port(sidecar), "/startupz")[0] == 200


@pytest.mark.parametrize("question", ["--live", "--ready", "--started"])
def test_the_healthcheck_command_asks_them(sidecar_process: SidecarFactory, question: str, tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_OPS_LISTEN": f"127.0.0.1:{port}",
        "SIDECAR_UPSTREAM": f"tcp://127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-m", "sidecar", "healthcheck", question]
    environment = clean_environment(settings | {"SIDECAR_JOURNAL_DIR": str(tmp_path / "unused")})
    before = subprocess.run(command, env=environment, capture_output=True, text=True)
    sidecar = sidecar_process(None, settings)
    sidecar.wait_for_event("ops")
    after = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert before.returncode == 1
    assert "not well" in before.stderr
    assert (after.returncode, after.stderr) == (0, "")


def test_upstream_mode_stays_ready_and_says_that_jobs_are_refused(sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(f"tcp://127.0.0.1:{free_port()}", {"SIDECAR_ACK": "upstream"})
    sidecar.wait_for_event("link_down")
    status, facts = health(sidecar.http_port, "/readyz")
    assert (status, facts["upstream"]) == (200, "down")


def _answer(port: int, head: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
