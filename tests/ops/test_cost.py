"""What watching costs: CPU seconds of the sidecar's process, idle, and with a scraper and ten open pages."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import SidecarFactory
from tests.ops.asking import get
from tests.real.faktory_server import RealFaktory
from tests.real.sidecar_command import SidecarProcess

pytestmark = pytest.mark.alone

SECONDS = 20.0
SCRAPE_EVERY = 5.0
PAGES = 10
IDLE_LIMIT, WATCHED_LIMIT = 0.005, 0.03
"""Of a core."""


def cpu_seconds(sidecar: SidecarProcess) -> float:
    """User and system time of the process."""
    fields = Path(f"/proc/{sidecar.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def share(sidecar: SidecarProcess) -> float:
    """The share of a core that the process uses over `SECONDS`."""
    before, started = cpu_seconds(sidecar), time.monotonic()
    time.sleep(SECONDS)  # the time itself is what is measured
    return (cpu_seconds(sidecar) - before) / (time.monotonic() - started)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_watching_is_cheap(faktory: RealFaktory, sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(faktory.url)
    sidecar.wait_for_event("link_up")
    get(sidecar.http_port, "/metrics")
    idle = share(sidecar)

    pages = [_page(sidecar.http_port) for _ in range(PAGES)]
    over = threading.Event()
    scraper = threading.Thread(target=_scrape, args=(sidecar.http_port, over))
    scraper.start()
    try:
        watched = share(sidecar)
    finally:
        over.set()
        scraper.join()
        received = [_drained(page) for page in pages]
    print(f"idle {idle:.2%} of a core, watched {watched:.2%}")
    assert all(data.count(b"data: {") >= SECONDS - 5 for data in received), "every page had its news"
    assert idle < IDLE_LIMIT
    assert watched < WATCHED_LIMIT


def _scrape(port: int, over: threading.Event) -> None:
    while not over.wait(SCRAPE_EVERY):
        get(port, "/metrics")


def _page(port: int) -> socket.socket:
    get(port, "/")
    page = socket.create_connection(("127.0.0.1", port))
    page.sendall(b"GET /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return page


def _drained(page: socket.socket) -> bytes:
    page.setblocking(False)
    parts: list[bytes] = []
    try:
        while part := page.recv(1 << 20):
            parts.append(part)
    except BlockingIOError:
        return b"".join(parts)
    finally:
        page.close()
    return b"".join(parts)
