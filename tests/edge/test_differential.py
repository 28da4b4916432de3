"""The same commands to a Faktory directly and through the sidecar: same replies, same stored jobs."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from tests.conftest import FaktoryFactory, SidecarFactory
from tests.protocol import generated
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient

COMMANDS = 3_000
PIECE = 50
"""Commands on their way at once: a pipelining client."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "settings",
    [{"SIDECAR_ACK": "disk"}, {"SIDECAR_ACK": "upstream"}, {"SIDECAR_ACK": "memory"}, {"BATCH_AUTO_ENABLED": "false"}],
    ids=["disk", "upstream", "memory", "legacy"],
)
def test_replies_and_stored_jobs_are_those_of_a_direct_connection(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, settings: dict[str, str]
) -> None:
    direct_server, server = faktory_factory(), faktory_factory()
    sidecar = sidecar_process(server.url, settings | {"SIDECAR_HTTP_LISTEN": "off", "SIDECAR_PIPELINE_DEPTH": "4"})
    with direct_server.client() as direct, sidecar.client() as through:
        lines = iter(generated.commands(7, COMMANDS))
        while piece := list(islice(lines, PIECE)):
            assert replies(through, piece) == replies(direct, piece)
        settled(sidecar_client=through)
    assert contents(server) == contents(direct_server)


def replies(client: RawClient, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Each line with its reply."""
    client.send(b"".join(line + b"\r\n" for line in lines))
    return [(line, client.raw_reply()) for line in lines]


def settled(sidecar_client: RawClient) -> None:
    """INFO is a barrier: after it, everything that this connection pushed is upstream."""
    assert sidecar_client.raw_call(b"INFO").startswith(b"$")


def contents(server: RealFaktory) -> Counter[tuple[str, str]]:
    """Every stored job, as text, with its place, without what no two runs have in common.

    That is `created_at` stamped by the server or the sidecar, `enqueued_at`, and `retry`: 25 or what an earlier PUSH
    of another job made of the server's default.
    """
    keys = server.redis("KEYS", "q:*")
    scheduled = server.redis("ZRANGE", "scheduled", "0", "-1")
    assert isinstance(keys, list)
    assert isinstance(scheduled, list)
    found = Counter(("scheduled", comparable(str(job))) for job in scheduled)
    for key in keys:
        queue = server.redis("LRANGE", str(key), "0", "-1")
        assert isinstance(queue, list)
        found.update((str(key), comparable(str(job))) for job in queue)
    return found


MOMENTS = re.compile(r'"retry":-?[0-9]+,|"enqueued_at":"[^"]*",|"created_at":"20[2-9][0-9]-[^"]*",')
"""The generated jobs' own `created_at` are earlier than 2020 or no times at all."""


def comparable(job: str) -> str:
    return MOMENTS.sub("", job)


def test_a_failed_neighbour_in_a_bulk_push_is_told_as_faktory_tells_it(
    faktory: RealFaktory, sidecar_process: SidecarFactory
) -> None:
    good = {"jid": "good-neighbour", "jobtype": "T", "args": []}
    bad = {"jid": "no-type-here", "jobtype": "", "args": []}
    sidecar = sidecar_process(faktory.url, {"SIDECAR_HTTP_LISTEN": "off"})
    with sidecar.client() as through:
        assert through.push_bulk([good, bad]) == {"no-type-here": "jobs must have a jobtype parameter"}
    assert [job["jid"] for job in faktory.stored()] == ["good-neighbour"]


def test_the_documented_retry_is_kept_from_a_server_that_forgot_it(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory
) -> None:
    """A PUSH with `retry` changes the server's default for later jobs without it, of any client."""
    server = faktory_factory()
    sidecar = sidecar_process(server.url, {"SIDECAR_HTTP_LISTEN": "off"})
    with server.client() as direct, sidecar.client() as through:
        direct.push({"jid": "sets-a-default", "jobtype": "T", "args": [], "retry": 3})
        direct.push({"jid": "meant-twenty-five", "jobtype": "T", "args": []})
        through.push({"jid": "gets-twenty-five", "jobtype": "T", "args": []})
        wait_for(lambda: len(server.stored()) == 3, what="all jobs are stored")
    stored = {job["jid"]: job["retry"] for job in server.stored()}
    assert stored == {"sets-a-default": 3, "meant-twenty-five": 3, "gets-twenty-five": 25}
