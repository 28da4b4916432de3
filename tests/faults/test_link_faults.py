"""What happens to a real link, in every mode at once: it recovers, nothing acknowledged is lost, nothing false is said.

`Bench.verify` has the rules: every `+OK` is in Faktory; no job that was told to be `not sent` is; every other refusal
is Faktory's own or says that it is in doubt; every reply comes within 5 s and none after it; duplicates are at most
what the log says was in doubt, and that at most depth times batch size at each loss.
"""

from __future__ import annotations

import time

import pytest

from tests.conftest import FaktoryFactory, SidecarFactory
from tests.faults.relay import Relay
from tests.faults.three_modes import three_sidecars
from tests.real.polling import wait_for
from tests.real.toxiproxy_server import Toxiproxy

pytestmark = pytest.mark.timeout(120)

LONGER_THAN_ANY_ANSWER = 4.5
"""Seconds: a fault of this length makes producers in `upstream` mode see the 4 s rule."""
LONGER_THAN_FAKTORYS_LIMIT = 7.0
"""Seconds: Faktory gives up on its Redis after 5."""


def test_reset_by_a_proxy(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=20)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        bench.pushes()
        link.reset_peer()
        bench.link_noticed()
        link.disable()  # Toxiproxy hangs at times when toxics are removed from connections that are being reset
        link.heal()
        bench.pushes()
        bench.verify()


def test_reset_in_the_middle_of_anything(faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory) -> None:
    """A real TCP reset, again and again; what was on its way in both directions is gone."""
    server = faktory_factory()
    with Relay(server.port) as relay, three_sidecars(server, relay.port, sidecar_process) as bench:
        for _ in range(3):
            bench.pushes()
            relay.reset()
        bench.link_noticed()
        bench.pushes()
        bench.verify()


def test_cut_again_and_again(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=20)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        for _ in range(5):
            bench.pushes(10)
            link.cut()
        bench.pushes()
        bench.verify()


def test_closed_in_the_middle_of_a_reply(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        bench.pushes()
        link.limit_data(1_503, stream="downstream")
        bench.link_noticed()
        link.heal()
        bench.pushes()
        bench.verify()


def test_closed_in_the_middle_of_a_batch(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        bench.pushes()
        link.limit_data(30_001)
        bench.link_noticed()
        time.sleep(1.0)  # some more connections end like that, each somewhere else
        link.heal()
        bench.pushes()
        bench.verify()


def test_half_closed(faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory) -> None:
    """Upstream ends its direction and goes on reading: the link is given up, not written into for ever."""
    server = faktory_factory()
    with Relay(server.port) as relay, three_sidecars(server, relay.port, sidecar_process) as bench:
        bench.pushes()
        relay.half_close()
        bench.link_noticed()
        bench.pushes()
        bench.verify()


def test_stalled_and_going_on(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    """Nothing gets through for longer than a client waits, then all of it: the late replies are nobody's."""
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=20)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        bench.pushes()
        link.latency(60_000)  # what is on its way when it heals comes at once
        time.sleep(LONGER_THAN_ANY_ANSWER)
        link.heal()
        bench.pushes()
        bench.verify(refusals="in doubt: ")


def test_black_hole(faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory) -> None:
    """Bytes vanish and nobody is told: found by the missing replies, 15 s after the last one."""
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=20)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        bench.pushes()
        link.black_hole(stream="upstream")
        bench.link_noticed(timeout=30)
        assert "no reply for 15 s" in bench.sides[0].process.events("link_down")[0]["message"]
        link.disable()
        link.heal()
        bench.pushes()
        bench.verify(refusals="(?s)in doubt: .*not sent: |not sent: .*in doubt: ")


def test_slow(faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory) -> None:
    """A round trip of 1.2 s and 30 kB/s, for a while; the link stays up."""
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=20)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        bench.pushes()
        link.round_trip(1200)
        link.bandwidth(30)
        time.sleep(LONGER_THAN_ANY_ANSWER)
        link.heal()
        bench.pushes()
        bench.verify()
        assert not any(side.process.events("link_down") for side in bench.sides)


def test_sliced(faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory) -> None:
    """Both directions in pieces of a few bytes; then the link ends in the middle of one."""
    server = faktory_factory()
    link = toxiproxy.link(server.port)
    with three_sidecars(server, link.port, sidecar_process) as bench:
        link.slicer(7, variation=6, microseconds=10)
        link.slicer(3, variation=2, microseconds=10, stream="downstream")
        bench.pushes()
        link.cut()
        bench.pushes()
        bench.verify()


def test_down_at_the_start(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    server = faktory_factory()
    link = toxiproxy.link(server.port, round_trip=20)
    link.disable()
    with three_sidecars(server, link.port, sidecar_process) as bench:
        time.sleep(LONGER_THAN_ANY_ANSWER)
        assert not bench.sides[-1].book.accepted
        assert all(bench.sides[i].book.accepted for i in (0, 1)), "taken while upstream is away"
        link.enable()
        bench.pushes()
        bench.verify(refusals="not sent: Faktory can't be reached")


def test_faktory_stopped_and_started(faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory) -> None:
    server = faktory_factory()
    with three_sidecars(server, server.port, sidecar_process) as bench:
        bench.pushes()
        server.stop()
        time.sleep(LONGER_THAN_ANY_ANSWER)
        server.start()
        bench.pushes()
        bench.verify(refusals="not sent: Faktory can't be reached")


def test_redis_stalled(faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory) -> None:
    """Faktory answers each command after 5 s with an error, when its Redis hangs."""
    server = faktory_factory()
    with three_sidecars(server, server.port, sidecar_process) as bench:
        bench.pushes()
        server.stall_redis()
        time.sleep(LONGER_THAN_FAKTORYS_LIMIT)
        server.resume_redis()
        bench.pushes()
        bench.verify(refusals="in doubt: |deadline exceeded", timed_out=True)


def test_redis_out_of_memory(faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory) -> None:
    """Redis refuses to store anything: Faktory's own words in `upstream` mode, patience in the others."""
    server = faktory_factory()
    with three_sidecars(server, server.port, sidecar_process) as bench:
        bench.pushes()
        server.redis("CONFIG", "SET", "maxmemory", "1")
        upstream = bench.sides[-1].book
        wait_for(lambda: upstream.of_kind("ERR OOM command not allowed"), what="upstream mode tells of it", timeout=20)
        time.sleep(1.0)
        server.redis("CONFIG", "SET", "maxmemory", "0")
        bench.pushes()
        bench.verify(refusals="ERR OOM command not allowed")
        assert not any(side.process.events("job_dead") for side in bench.sides)


def test_a_job_whose_reply_is_lost_is_never_called_not_sent(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    """Sent, stored by Faktory, its reply lost, and no new link by the time of the answer: that is in doubt."""
    server = faktory_factory()
    link = toxiproxy.link(server.port)
    sidecar = sidecar_process(server.url_at(link.port), {"SIDECAR_ACK": "upstream", "SIDECAR_HTTP_LISTEN": "off"})
    with sidecar.client() as client:
        assert client.push({"jid": "before-it-all", "jobtype": "T", "args": []}) == "OK"
        link.latency(60_000)
        client.send('PUSH {"jid":"reply-is-lost","jobtype":"T","args":[]}')
        wait_for(lambda: len(server.stored()) == 2, what="Faktory has the job")
        link.disable()
        assert client.raw_reply().startswith(b"-ERR in doubt: ")
        assert client.raw_call('PUSH {"jid":"never-was-sent","jobtype":"T","args":[]}').startswith(b"-ERR not sent: ")
    assert [job["jid"] for job in server.stored()] == ["before-it-all", "reply-is-lost"]


@pytest.mark.slow
def test_a_job_that_takes_longer_to_send_than_a_reply_may_take(
    faktory_factory: FaktoryFactory, toxiproxy: Toxiproxy, sidecar_process: SidecarFactory
) -> None:
    """3 MB at 100 kB/s: the link is not given up while it is still busy with the job, and nothing is sent twice."""
    server = faktory_factory()
    link = toxiproxy.link(server.port)
    sidecar = sidecar_process(server.url_at(link.port), {"SIDECAR_HTTP_LISTEN": "off"})
    sidecar.wait_for_event("link_up")
    link.bandwidth(100)
    with sidecar.client() as client:
        assert client.push({"jid": "a-large-one", "jobtype": "T", "args": ["x" * 3_000_000]}) == "OK"
        assert client.push({"jid": "a-small-one", "jobtype": "T", "args": []}) == "OK"
    wait_for(lambda: len(server.stored()) == 2, what="both arrive", timeout=80)
    assert not sidecar.events("link_down")


@pytest.mark.parametrize("mode", ["upstream", "disk"])
def test_a_pipelining_client_has_all_its_replies_in_time(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, mode: str
) -> None:
    """The time runs from a command's arrival, not from when those before it were answered."""
    server = faktory_factory()
    with Relay(server.port) as relay:
        sidecar = sidecar_process(server.url_at(relay.port), {"SIDECAR_ACK": mode, "SIDECAR_HTTP_LISTEN": "off"})
        with sidecar.client(timeout=20) as client:
            assert client.push({"jid": "while-it-works", "jobtype": "T", "args": []}) == "OK"
            assert client.info()["faktory"]
            relay.mute = True
            started = time.monotonic()
            pushes = [f'PUSH {{"jid":"stalled-{number}","jobtype":"T","args":[]}}' for number in range(3)]
            client.send("".join(f"INFO\r\n{push}\r\n" for push in pushes))
            replies = [client.raw_reply() for _ in range(6)]
            assert time.monotonic() - started < 5.0, replies
    assert all(reply.startswith((b"-ERR in doubt: ", b"-ERR not sent: ", b"+OK")) for reply in replies), replies
