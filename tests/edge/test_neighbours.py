"""What one local client does must not reach another."""

from __future__ import annotations

import pytest

from tests.conftest import SidecarFactory
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for


@pytest.mark.parametrize(
    "line", [b'BEAT {"wid":"a\\r\\n+OK\\r\\n$2\\r\\n{}"}', b'FAIL {"jid":"a\\r\\n+OK\\r\\n+OK"}'], ids=["BEAT", "FAIL"]
)
def test_line_breaks_that_faktory_decodes_into_an_error_shift_nobody_elses_replies(
    faktory: RealFaktory, sidecar_process: SidecarFactory, line: bytes
) -> None:
    """Faktory 1.10.0 answers such a command with what reads as several replies; producers share a connection."""
    sidecar = sidecar_process(faktory.url, {"SIDECAR_HTTP_LISTEN": "off"})
    with sidecar.client() as hostile, sidecar.client() as neighbour:
        assert hostile.raw_call(line).startswith(b"-ERR ")
        for _ in range(3):
            refused = neighbour.raw_call(b'PUSH {"jid":"short","jobtype":"T","args":[]}')
            assert refused == b"-ERR jobs must have a reasonable jid parameter\r\n"
        assert neighbour.raw_call(b"NOPE") == b"-ERR unknown command NOPE\r\n"


def test_equal_scheduled_jobs_that_arrive_together_are_as_many_as_without_the_sidecar(
    faktory: RealFaktory, sidecar_process: SidecarFactory
) -> None:
    sidecar = sidecar_process(faktory.url, {"SIDECAR_HTTP_LISTEN": "off"})
    job = b'PUSH {"jid":"the-same-job","jobtype":"T","args":[],"at":"2037-01-02T03:04:05Z"}\r\n'
    with sidecar.client() as client:
        client.send(job * 5)
        assert [client.raw_reply() for _ in range(5)] == [b"+OK\r\n"] * 5
    assert wait_for(lambda: len(faktory.stored_sorted()) == 5, what="all five are scheduled")
