"""The states of a sidecar, each produced for real, each recognised by page, metrics, health and logs alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import SidecarFactory
from tests.ops.asking import health, metric, wait_beside_others
from tests.ops.browser import PHONE, conditions, opened, wait_for_condition
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.ports import free_port
from tests.real.raw_client import ServerError
from tests.real.sidecar_command import SidecarProcess

pytestmark = pytest.mark.slow

SECRET = "the-args-are-nobodys-business"


def job(number: int, **fields: Any) -> dict[str, Any]:
    return {"jid": f"state-{number:08d}", "jobtype": "SendInvoice", "args": [SECRET], **fields}


@contextmanager
def pushing(sidecar: SidecarProcess, **fields: Any) -> Iterator[None]:
    """A producer that pushes one job after the other, whatever it is told."""
    over = threading.Event()

    def push() -> None:
        number = 0
        with sidecar.client() as client:
            while not over.is_set():
                number += 1
                try:
                    client.push(job(number, **fields))
                except ServerError:
                    continue  # refused, as in some of these states

    producer = threading.Thread(target=push)
    producer.start()
    try:
        yield
    finally:
        over.set()
        producer.join()


def condition(sidecar: SidecarProcess, name: str) -> float:
    return metric(sidecar.http_port, "condition", condition=name)


def look(page: Page, state: str) -> str:
    """Wait for the page's verdict; its words."""
    wait_for_condition(page, state)
    return page.inner_text("#verdict")


def assert_page(chrome: Browser, sidecar: SidecarProcess, state: str, *said: str) -> None:
    """The page says so at desktop and phone width, in both colours, fits, and tells nothing of a job's args."""
    for size, scheme in (((1280, 900), "light"), (PHONE, "dark")):
        with opened(chrome, sidecar.http_port, size=size, scheme=scheme) as (page, complaints):  # type: ignore[arg-type]
            words = look(page, state)
            whole = page.inner_text("body")
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert not complaints
        for text in said:
            assert text in words
        assert SECRET not in whole


def test_idle(faktory: RealFaktory, sidecar_process: SidecarFactory, chrome: Browser) -> None:
    sidecar = sidecar_process(faktory.url)
    sidecar.wait_for_event("link_up")

    wait_for(lambda: condition(sidecar, "idle"), what="idle")
    assert metric(sidecar.http_port, "link_up") == 1
    assert metric(sidecar.http_port, "jobs_waiting") == 0
    assert health(sidecar.http_port, "/readyz") == (
        200,
        {
            "status": "ok",
            "reason": None,
            "upstream": "up",
            "upstream_reason": None,
            "waiting_jobs": 0,
            "oldest_job_seconds": 0.0,
            "dead_letters": 0,
            "findings": ["idle"],
        },
    )
    assert_page(chrome, sidecar, "idle", "All is well", "Faktory 1.10.0")
    assert not [record for record in sidecar.log() if record.get("level") in ("warning", "error")]


def test_busy(faktory: RealFaktory, sidecar_process: SidecarFactory, chrome: Browser) -> None:
    sidecar = sidecar_process(faktory.url)
    with pushing(sidecar):
        wait_for(lambda: condition(sidecar, "busy"), what="busy")
        assert health(sidecar.http_port, "/readyz")[1]["findings"] == ["busy"]
        assert_page(chrome, sidecar, "busy", "All is well", "jobs/s in")
        port = sidecar.http_port
        assert metric(port, "jobs_taken_total", edge="fwp", lane="coalesced", mode="disk") > 10
        assert metric(port, "jobs_delivered_total") > 10
        assert metric(port, "batch_jobs_count", reason="timeout") + metric(port, "batch_jobs_count", reason="full") > 0
        assert metric(port, "batch_reply_seconds_count") > 0
        assert metric(port, "journal_commit_seconds_count") > 0
        assert sidecar.events("batch_flushed")
        assert sidecar.events("batch_enqueued")


def test_upstream_down(faktory_factory: Any, sidecar_process: SidecarFactory, chrome: Browser) -> None:
    faktory = faktory_factory()
    sidecar = sidecar_process(faktory.url)
    sidecar.wait_for_event("link_up")
    faktory.stop()
    with sidecar.client() as client:
        assert client.push(job(1)) == "OK"

    wait_for(lambda: condition(sidecar, "upstream_down"), what="upstream down")
    assert metric(sidecar.http_port, "link_up") == 0
    assert metric(sidecar.http_port, "accepting") == 1
    wait_for(lambda: metric(sidecar.http_port, "oldest_job_seconds") > 0.5, what="the oldest job grows older")
    status, facts = health(sidecar.http_port, "/readyz")
    assert (status, facts["status"], facts["upstream"], facts["waiting_jobs"]) == (200, "ok", "down", 1)
    assert "refused" in facts["upstream_reason"]
    assert_page(chrome, sidecar, "upstream_down", "Faktory can't be reached", "still accepted, into the journal: 1 job")
    assert "accepting into the journal" in sidecar.wait_for_event("link_down")["message"]

    with opened(chrome, sidecar.http_port) as (page, _):
        look(page, "upstream_down")
        faktory.start()
        page.wait_for_selector("#verdict[data-level=good]", timeout=30_000)


def test_journal_full(sidecar_process: SidecarFactory, chrome: Browser) -> None:
    sidecar = sidecar_process(f"tcp://127.0.0.1:{free_port()}", {"SIDECAR_JOURNAL_MAX_BYTES": "64MiB"})
    with pushing(sidecar, custom={"padding": "x" * 400_000}):
        wait_for(lambda: condition(sidecar, "refusing"), what="refusing", timeout=40)
        wait_for(lambda: health(sidecar.http_port, "/readyz")[0] == 503, what="not ready")
        status, facts = health(sidecar.http_port, "/livez")
        assert (status, facts["findings"][0]) == (200, "refusing")
        wait_for(
            lambda: sum(metric(sidecar.http_port, "refusals_total", reason=reason) for reason in ("full", "journal")),
            what="refusals are counted",
        )
        assert_page(chrome, sidecar, "refusing", "Jobs are being refused", "SIDECAR_JOURNAL_MAX_BYTES")
        with opened(chrome, sidecar.http_port) as (page, _):
            look(page, "refusing")
            assert conditions(page) == ["refusing", "upstream_down"]
    assert "journal full" in sidecar.wait_for_event("journal_full")["message"]
    taken = metric(sidecar.http_port, "jobs_taken_total", edge="fwp", lane="coalesced", mode="disk")
    assert taken == metric(sidecar.http_port, "journal_jobs") == metric(sidecar.http_port, "jobs_waiting")


def test_dead_letters(faktory_factory: Any, sidecar_process: SidecarFactory, chrome: Browser) -> None:
    faktory = faktory_factory()
    sidecar = sidecar_process(faktory.url, program="tests.real.impatient")
    faktory.redis("SET", "poisoned", "no list")  # Redis refuses to push onto it, for good
    faktory.redis("SET", "q:poisoned", "no list")
    with sidecar.client() as client:
        for number in range(3):
            assert client.push(job(number, queue="poisoned")) == "OK"
        wait_beside_others(client, lambda: metric(sidecar.http_port, "journal_dead_letters") == 3, what="dead letters")
    assert condition(sidecar, "dead_letters") == 1
    assert metric(sidecar.http_port, "jobs_rejected_total", fate="dead_letter") == 3
    status, facts = health(sidecar.http_port, "/readyz")
    assert (status, facts["dead_letters"]) == (200, 3)
    assert_page(chrome, sidecar, "dead_letters", "3 dead letters", "journal dead ls")
    with opened(chrome, sidecar.http_port) as (page, _):
        page.wait_for_selector("#letters tr")
        row = page.inner_text("#letters")
    assert "WRONGTYPE" in row
    assert "SendInvoice" in row
    assert "poisoned" in row
    assert "state-0000000" in row
    said = sidecar.wait_for_event("job_dead")
    assert "WRONGTYPE" in said["message"]
    assert SECRET not in sidecar.log_text()


def test_a_faktory_that_answers_and_takes_no_jobs(
    faktory_factory: Any, sidecar_process: SidecarFactory, chrome: Browser
) -> None:
    faktory = faktory_factory()
    sidecar = sidecar_process(faktory.url)
    sidecar.wait_for_event("link_up")
    faktory.redis("CONFIG", "SET", "maxmemory", "1")
    with sidecar.client() as client:
        assert client.push(job(1)) == "OK"
    wait_for(lambda: condition(sidecar, "stuck"), what="stuck", timeout=40)
    assert metric(sidecar.http_port, "link_up") == 1
    assert health(sidecar.http_port, "/readyz")[0] == 200
    assert_page(chrome, sidecar, "stuck", "takes no jobs", "1 job waiting")
    assert "OOM" in sidecar.wait_for_event("jobs_put_off")["message"]
    faktory.redis("CONFIG", "SET", "maxmemory", "0")
    wait_for(lambda: metric(sidecar.http_port, "jobs_delivered_total"), what="the job is delivered", timeout=20)


def test_a_flood_of_dead_letters_does_not_flood_the_log(faktory_factory: Any, sidecar_process: SidecarFactory) -> None:
    faktory = faktory_factory()
    sidecar = sidecar_process(faktory.url, program="tests.real.impatient")
    faktory.redis("SET", "poisoned", "no list")
    faktory.redis("SET", "q:poisoned", "no list")
    with sidecar.client() as client:
        client.push_bulk([job(number, queue="poisoned") for number in range(300)])
        wait_beside_others(
            client, lambda: metric(sidecar.http_port, "journal_dead_letters") == 300, what="dead letters"
        )
    sidecar.terminate()
    assert sidecar.wait() == 0
    *single, summary = sidecar.events("job_dead")
    assert len(single) == 5
    assert summary["left_out"] == 295
    assert summary["level"] == "error"
