"""Passwords and TLS, on both sides."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from sidecar.demo.embedded import EmbeddedFaktory
from tests.conftest import FaktoryFactory, SidecarFactory
from tests.demo.embedded_thread import embedded_in_thread, in_thread
from tests.real.faktory_server import Certificate
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient, ServerError
from tests.real.sidecar_command import SidecarProcess

OFF = {"SIDECAR_HTTP_LISTEN": "off"}
JOB = {"jid": "behind-a-secret", "jobtype": "T", "args": []}
Connect = Callable[..., RawClient]


def upstream_of(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


@pytest.fixture
def guarded(sidecar_process: SidecarFactory) -> Iterator[SidecarProcess]:
    """A sidecar whose local clients need a password, before a Faktory with another one."""
    with embedded_in_thread(password="theirs") as server:
        url = f"tcp://:theirs@127.0.0.1:{server.port}"
        yield sidecar_process(url, OFF | {"SIDECAR_LISTEN_PASSWORD": "ours"})


@pytest.mark.parametrize("hello", [{}, {"wid": ""}, {"wid": "worker-with-password"}], ids=["plain", "empty wid", "wid"])
def test_the_right_password_opens(guarded: SidecarProcess, hello: dict[str, str]) -> None:
    with guarded.client(hello=hello) as client:
        assert client.push(JOB) == "OK"
        assert client.info()["server"]


def test_a_client_without_a_version_hashes_once(guarded: SidecarProcess) -> None:
    import hashlib
    import json

    with RawClient(guarded.port, greet=False) as client:
        hi = json.loads((client.reply() or "")[3:])
        assert set(hi) == {"v", "i", "s"}
        digest = hashlib.sha256(("ours" + hi["s"]).encode()).hexdigest()
        assert client.call(f'HELLO {{"pwdhash":"{digest}"}}') == "OK"
        assert client.push(JOB) == "OK"


@pytest.mark.parametrize("wrong", ["theirs", "", "OURS"])
def test_a_wrong_password_is_refused_as_faktory_does_it(
    guarded: SidecarProcess, wrong: str, faktory_factory: FaktoryFactory
) -> None:
    with pytest.raises(ServerError, match=r"^ERR Invalid password$"):
        RawClient(guarded.port, wrong)
    with pytest.raises(ServerError, match=r"^ERR Invalid password$"):
        RawClient(faktory_factory(password="ours").port, wrong)
    record = guarded.wait_for_event("wrong_password")
    assert str(record["peer"]).startswith("127.0.0.1:")
    assert "ours" not in guarded.log_text()


def test_an_address_beyond_loopback_wants_a_password(sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(upstream_of(1), OFF | {"SIDECAR_LISTEN": "0.0.0.0:0"}, wait=False)
    assert sidecar.wait(20) == 2
    assert "SIDECAR_LISTEN_PASSWORD" in sidecar.log_text()


@pytest.fixture
def local_tls(sidecar_process: SidecarFactory, certificate: Certificate) -> Iterator[SidecarProcess]:
    """A sidecar whose local endpoint speaks TLS and wants a password."""
    with embedded_in_thread() as server:
        yield sidecar_process(
            upstream_of(server.port),
            OFF
            | {
                "SIDECAR_LISTEN_PASSWORD": "ours",
                "SIDECAR_LISTEN_TLS_CERT": str(certificate.chain),
                "SIDECAR_LISTEN_TLS_KEY": str(certificate.key),
            },
        )


def trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate.authority)


def test_local_tls_carries_pipelined_pushes_and_large_ones(local_tls: SidecarProcess, certificate: Certificate) -> None:
    with local_tls.client(tls=trusting(certificate), host="localhost") as client:
        for number in range(200):
            client.send(f'PUSH {{"jid":"over-tls-{number}","jobtype":"T","args":["{"x" * 20_000}"]}}')
        assert [client.reply() for _ in range(200)] == ["OK"] * 200
        client.send("END")
        assert client.raw_reply() == b""


def test_a_wrong_password_is_told_over_tls_too(local_tls: SidecarProcess, certificate: Certificate) -> None:
    with pytest.raises(ServerError, match="Invalid password"):
        RawClient(local_tls.port, "wrong", tls=trusting(certificate), host="localhost")


def test_a_client_without_tls_is_told_of_in_the_log(local_tls: SidecarProcess) -> None:
    """It waits for the greeting, as clients of Faktory do, and gets none."""
    with socket.create_connection(("127.0.0.1", local_tls.port), timeout=5) as client:
        assert client.recv(100) == b""
    assert "tcp+tls://" in str(local_tls.wait_for_event("stranger")["message"])


@pytest.mark.parametrize("garbage", [b"HELLO {}\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 1000, b""])
def test_garbage_on_a_tls_listener_harms_nobody(
    local_tls: SidecarProcess, certificate: Certificate, garbage: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", local_tls.port), timeout=5) as stranger:
        stranger.sendall(garbage)
        if not garbage:
            stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass
    with local_tls.client(tls=trusting(certificate), host="localhost") as client:
        assert client.push(JOB) == "OK"
    assert not local_tls.events("connection_failed")
    if garbage:
        said = wait_for(lambda: local_tls.events("stranger"), what="one clear line")
        assert "TLS" in str(said[0]["message"])
    else:
        assert not local_tls.events("stranger")


# tcp+tls:// upstream


def test_a_faktory_of_a_private_authority(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, certificate: Certificate
) -> None:
    server = faktory_factory(password="theirs", tls=certificate)
    sidecar = sidecar_process(server.url, OFF | {"SIDECAR_UPSTREAM_TLS_CA": str(certificate.authority)})
    with sidecar.client() as producer, sidecar.client(hello={"wid": "tls-worker"}) as consumer:
        assert producer.push(JOB) == "OK"
        job = wait_for(lambda: consumer.fetch("default"), what="the job arrives")
        assert consumer.ack(job["jid"]) == "OK"


def test_an_authority_that_nobody_knows_is_refused(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, certificate: Certificate
) -> None:
    server = faktory_factory(tls=certificate)
    sidecar = sidecar_process(server.url, OFF)
    said = sidecar.wait_for_event("link_down")["message"]
    assert "certificate refused: " in str(said)
    with pytest.raises(ServerError, match="certificate refused"):
        sidecar.client(hello={"wid": "never-served"})


def test_a_wrong_name_is_refused(
    faktory_factory: FaktoryFactory, sidecar_process: SidecarFactory, certificate: Certificate, tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("elsewhere.example")
    made = Certificate(tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "authority.pem")
    made.chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    made.key.write_bytes(issued.private_key_pem.bytes())
    made.authority.write_bytes(authority.cert_pem.bytes())
    server = faktory_factory(tls=made, start=False)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(made.chain, made.key)
    assert not server.running
    embedded = EmbeddedFaktory(tls=server_context)
    with in_thread(embedded):
        url = f"tcp+tls://localhost:{embedded.port}"
        sidecar = sidecar_process(url, OFF | {"SIDECAR_UPSTREAM_TLS_CA": str(made.authority)})
        said = str(sidecar.wait_for_event("link_down")["message"])
    assert "ertificate" in said
    assert "localhost" in said


@pytest.mark.parametrize("with_certificate", [True, False])
def test_a_client_certificate(sidecar_process: SidecarFactory, tmp_path: Path, *, with_certificate: bool) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    authority.configure_trust(server_context)
    server_context.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("sidecar@example.com")
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(b"".join(part.bytes() for part in ours.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(ours.private_key_pem.bytes())
    files = {
        "SIDECAR_UPSTREAM_TLS_CERT": str(tmp_path / "cert.pem"),
        "SIDECAR_UPSTREAM_TLS_KEY": str(tmp_path / "key.pem"),
    }
    embedded = EmbeddedFaktory(tls=server_context)
    with in_thread(embedded):
        sidecar = sidecar_process(
            f"tcp+tls://localhost:{embedded.port}",
            OFF | {"SIDECAR_UPSTREAM_TLS_CA": str(tmp_path / "ca.pem")} | (files if with_certificate else {}),
        )
        if not with_certificate:
            said = str(sidecar.wait_for_event("link_down")["message"])
            assert "TLS: " in said
            assert "_ssl.c" not in said
            return
        sidecar.wait_for_event("link_up")
        with sidecar.client(hello={"wid": "with-certificate"}) as consumer:
            assert consumer.push(JOB) == "OK"
            assert wait_for(lambda: consumer.fetch("default"), what="the job arrives")["jid"] == JOB["jid"]
