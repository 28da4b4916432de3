"""Thousands of connections that do nothing, and one that works beside them."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import SidecarFactory
from tests.demo.embedded_thread import embedded_in_thread
from tests.real.polling import wait_for
from tests.real.sidecar_command import SidecarProcess

CROWD = 3_500
BYTES_EACH = 16_000
"""Memory of a connection that is idle, at most."""
LITTLE = 256


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have enough files open, and start children with few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CROWD + 500
    if hard < needed:
        pytest.skip(f"needs {needed} open files, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(sidecar: SidecarProcess) -> int:
    """Bytes in RAM."""
    pages = int(Path(f"/proc/{sidecar.process.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def cpu_seconds(sidecar: SidecarProcess) -> float:
    fields = Path(f"/proc/{sidecar.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_thousands_of_idle_producers_beside_one_that_works(sidecar_process: SidecarFactory, many_files: None) -> None:
    """The sidecar is started with a soft limit of few open files, as shells and service managers have it."""
    needed, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with embedded_in_thread() as server, ExitStack() as crowd:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LITTLE, hard))
        try:
            sidecar = sidecar_process(f"tcp://127.0.0.1:{server.port}", {"SIDECAR_HTTP_LISTEN": "off"})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        before = memory(sidecar)
        sockets: list[socket.socket] = []
        for _ in range(CROWD):
            one = crowd.enter_context(socket.create_connection(("127.0.0.1", sidecar.port), timeout=5))
            one.sendall(b'HELLO {"v":2}\r\n')
            sockets.append(one)
        for one in sockets:
            with one.makefile("rb") as replies:
                assert replies.readline() == b'+HI {"v":2}\r\n'
                assert replies.readline() == b"+OK\r\n"
        each = (memory(sidecar) - before) / CROWD
        with sidecar.client() as client:
            for number in range(500):
                client.push({"jid": f"beside-a-crowd-{number}", "jobtype": "T", "args": []})
        wait_for(lambda: len(server.stored()) == 500, what="the jobs arrive")
        assert server.info()["server"]["connections"] <= 3
        assert each < BYTES_EACH, f"{each:.0f} bytes a connection"
    assert not [record for record in sidecar.log() if record.get("level") in ("warning", "error")]


@pytest.mark.slow
def test_an_idle_sidecar_costs_next_to_no_cpu(sidecar_process: SidecarFactory) -> None:
    with embedded_in_thread() as server:
        sidecar = sidecar_process(f"tcp://127.0.0.1:{server.port}", {"SIDECAR_HTTP_LISTEN": "off"})
        sidecar.wait_for_event("link_up")
        with sidecar.client() as producer, sidecar.client(hello={"wid": "idle"}) as consumer:
            assert producer.push({"jid": "one-and-only", "jobtype": "T", "args": []}) == "OK"
            started = cpu_seconds(sidecar)
            for _ in range(3):
                assert consumer.fetch("nothing-here") is None
            spent = cpu_seconds(sidecar) - started
        assert spent < 0.25, f"{spent:.2f} s of CPU in six idle seconds"
