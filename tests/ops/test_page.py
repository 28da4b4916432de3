"""The status page beside its states: offline, live, honest when the sidecar is gone, behind a token, accessible."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import SidecarFactory
from tests.ops.asking import get, ops_port, wait_beside_others
from tests.ops.browser import opened, wait_for_condition
from tests.real.faktory_server import RealFaktory
from tests.real.ports import free_port

CONTRAST = """
() => {
  const number = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (at) => {
    for (let each = at; each; each = each.parentElement) {
      const colour = number(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const at of document.querySelectorAll("body *")) {
    const own = [...at.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !at.getClientRects().length || at.closest("svg, script, style, noscript")) continue;
    const [a, b] = [light(number(getComputedStyle(at).color)), light(behind(at))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(at.outerHTML.slice(0, 80));
  }
  return poor;
}
"""


@pytest.fixture
def lonely(sidecar_process: SidecarFactory) -> Any:
    """A sidecar whose Faktory isn't there."""
    return sidecar_process(f"tcp://127.0.0.1:{free_port()}", {"SIDECAR_OPS_LISTEN": "127.0.0.1:0"})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_and_named(lonely: Any, chrome: Browser, scheme: Any) -> None:
    with opened(chrome, lonely.http_port, scheme=scheme) as (page, complaints):
        page.click("summary")
        page.wait_for_selector("#settings tr")
        assert page.evaluate(CONTRAST) == []
        unnamed = "svg[role=img]:not([aria-label]), table:not(:has(th[scope])), section:not([aria-labelledby])"
        assert page.query_selector_all(unnamed) == []
        assert len(page.query_selector_all("h1")) == 1
        assert page.get_attribute("html", "lang") == "en"
    assert not complaints


def test_it_says_so_when_the_sidecar_is_gone(lonely: Any, chrome: Browser) -> None:
    with opened(chrome, lonely.http_port) as (page, _):
        lonely.kill()
        page.wait_for_selector("body.lost", timeout=15_000)
        assert page.inner_text("#verdict-title") == "Unknown"
        assert "No answer from the sidecar" in page.inner_text("#stale")
        assert page.title().startswith("No answer")


def test_a_stop_does_not_wait_for_those_who_look(lonely: Any, chrome: Browser) -> None:
    with opened(chrome, lonely.http_port):
        lonely.terminate()
        assert lonely.wait(timeout=10) == 0
    at = {record["event"]: record["timestamp"] for record in lonely.log() if "timestamp" in record}
    seconds = _seconds(at["stopped"]) - _seconds(at["stopping"])
    assert seconds < 4.5, "open pages must not hold up the end for the server's grace of 5 s"


def _seconds(timestamp: str) -> float:
    hours, minutes, seconds = timestamp.rstrip("Z").partition("T")[2].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_settings_are_shown_without_secrets(sidecar_process: SidecarFactory, chrome: Browser) -> None:
    settings = {"SIDECAR_HTTP_TOKEN": "let-me-in-please", "SIDECAR_LISTEN_PASSWORD": "local-secret"}
    upstream = f"tcp://:remote-secret@127.0.0.1:{free_port()}"
    sidecar = sidecar_process(upstream, {**settings, "SIDECAR_OPS_LISTEN": "127.0.0.1:0"})
    with opened(chrome, sidecar.http_port, credentials=("anybody", "let-me-in-please")) as (page, complaints):
        page.click("summary")
        shown = page.inner_text("#settings")
        whole = page.content()
    assert not complaints
    assert "tcp://:***@127.0.0.1" in shown
    assert "BATCH_MAX_SIZE" in shown
    for secret in ("let-me-in-please", "local-secret", "remote-secret"):
        assert secret not in whole
        assert secret not in get(ops_port(sidecar), "/status.json")[2].decode()


def test_texts_from_outside_stay_text(faktory_factory: Any, sidecar_process: SidecarFactory, chrome: Browser) -> None:
    faktory = faktory_factory()
    sidecar = sidecar_process(faktory.url, program="tests.real.impatient")
    faktory.redis("SET", "poisoned", "x")
    faktory.redis("SET", "q:poisoned", "x")
    evil = "</script><script>document.title='gone'</script><img src=x onerror=alert(1)>"
    with sidecar.client() as client:
        client.push({"jid": f"{evil}-1", "jobtype": evil, "args": [], "queue": "poisoned"})
        wait_beside_others(client, lambda: sidecar.events("job_dead"), what="a dead letter")
    with opened(chrome, sidecar.http_port) as (page, complaints):
        wait_for_condition(page, "dead_letters")
        page.wait_for_selector("#letters tr")
        assert evil in page.inner_text("#letters")
        assert "gone" not in page.title()
    assert not complaints


def test_the_answer_is_one_file_and_its_policy_lets_nothing_else_in(lonely: Any) -> None:
    status, headers, body = get(lonely.http_port, "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert headers["cache-control"] == "no-store"
    assert b" src=" not in body
    assert b"@import" not in body
    assert b"https://" not in body


def test_it_moves_by_itself(faktory: RealFaktory, sidecar_process: SidecarFactory, chrome: Browser) -> None:
    sidecar = sidecar_process(faktory.url)
    with opened(chrome, sidecar.http_port) as (page, _):
        wait_for_condition(page, "idle")
        before = _taken(page)
        with sidecar.client() as client:
            client.push_bulk([{"jid": f"moving-{i:06d}", "jobtype": "T", "args": []} for i in range(40)])
        wait_for_condition(page, "busy")
        page.wait_for_function("document.querySelector('#plot-batches svg')")
        assert _taken(page) == before + 40


def _taken(page: Page) -> int:
    data = page.evaluate("fetch('status.json').then((answer) => answer.text())")
    taken: int = json.loads(data)["totals"]["taken"]
    return taken
