"""`check` against a real Faktory, and against what is none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.cli.command_line import sidecar
from tests.conftest import FaktoryFactory
from tests.real.faktory_server import Certificate, RealFaktory
from tests.real.sidecar_command import clean_environment

HERE = {"SIDECAR_LISTEN": "localhost:0", "SIDECAR_HTTP_LISTEN": "localhost:0"}


def environment(url: str, tmp_path: Path, **more: str) -> dict[str, str]:
    return {**HERE, "SIDECAR_UPSTREAM": url, "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal"), **more}


def failure(environ: dict[str, str]) -> str:
    """What `check` says of an upstream that can't be used."""
    ended = sidecar("check", environ=environ)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == ""
    first, second, *_ = ended.stdout.splitlines()
    assert first.startswith("upstream  fail tcp")
    return second.strip()


def test_a_good_upstream(faktory: RealFaktory, tmp_path: Path) -> None:
    ended = sidecar("check", environ=environment(faktory.url, tmp_path, BATCH_MAX_SIZE="200", SIDECAR_ACK="disk"))
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == f"upstream  ok   {faktory.url} (environment SIDECAR_UPSTREAM)"
    assert lines[1].startswith("               Faktory 1.10.0, no password wanted, PUSHB; round trip ")
    assert lines[1].endswith(" ms (median of 10)")
    assert lines[2].startswith("journal   ")
    assert "fsync" in lines[3]
    assert "ports     ok   localhost:0 (Faktory)  localhost:0 (HTTP)" in lines
    assert "BATCH_MAX_SIZE=200 (environment BATCH_MAX_SIZE)" in ended.stdout
    assert faktory.info()["faktory"]["total_enqueued"] == 0
    assert not (tmp_path / "journal").exists()


def test_json(faktory: RealFaktory, tmp_path: Path) -> None:
    ended = sidecar("check", "--json", "--ack", "disk", environ=environment(faktory.url, tmp_path, SIDECAR_AKC="1"))
    found = json.loads(ended.stdout)
    assert ended.returncode == found["exit_code"] == 0
    assert found["ok"] is True
    assert found["upstream"]["faktory_version"] == "1.10.0"
    assert found["upstream"]["pushb"] is True
    assert 0 < found["upstream"]["round_trip_ms"] < 1000
    assert found["journal"]["free_bytes"] > 0
    assert found["settings"]["SIDECAR_ACK"] == {"value": "disk", "source": "flag --ack"}
    assert found["warnings"] == ["SIDECAR_AKC is not a setting and is ignored; did you mean SIDECAR_ACK?"]


def test_json_of_wrong_settings() -> None:
    ended = sidecar("check", "--json", environ={"FAKTORY_URL": "nonsense"})
    assert ended.returncode == 2
    assert json.loads(ended.stdout) == {
        "ok": False,
        "exit_code": 2,
        "errors": [ended.stderr.removeprefix("error: ").strip()],
    }


def test_passwords(faktory_factory: FaktoryFactory, tmp_path: Path) -> None:
    server = faktory_factory(password="päss/word")
    good = sidecar("check", environ=environment(server.url, tmp_path))
    assert good.returncode == 0
    assert f"upstream  ok   tcp://:***@localhost:{server.port}" in good.stdout
    assert "password accepted" in good.stdout

    wrong = failure(environment(server.url, tmp_path, SIDECAR_UPSTREAM_PASSWORD="s3cret"))
    assert "Invalid password" in wrong
    assert "it has another password" in wrong
    missing = failure(environment(f"tcp://localhost:{server.port}", tmp_path))
    assert "it wants a password: SIDECAR_UPSTREAM_PASSWORD" in missing


def test_tls(faktory_factory: FaktoryFactory, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    paths = Certificate(tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(str(paths.chain))
    issued.private_key_pem.write_to_path(str(paths.key))
    authority.cert_pem.write_to_path(str(paths.authority))
    server = faktory_factory(tls=paths)
    ca = {"SIDECAR_UPSTREAM_TLS_CA": str(paths.authority)}

    assert sidecar("check", environ=environment(server.url, tmp_path, **ca)).returncode == 0
    assert "SIDECAR_UPSTREAM_TLS_CA" in failure(environment(server.url, tmp_path))
    wrong_name = failure(environment(f"tcp+tls://127.0.0.1:{server.port}", tmp_path, **ca))
    assert "its certificate has another name than 127.0.0.1" in wrong_name


def test_nothing_listens_there(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"tcp://:s3cret@127.0.0.1:{reserved.getsockname()[1]}"
        said = failure(environment(url, tmp_path))
    assert said.startswith("connection refused: nothing listens there")


@contextmanager
def server(greeting: bytes) -> Iterator[str]:
    """Something that says `greeting` to everyone and ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1) if not greeting else connection.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


def test_no_faktory(tmp_path: Path) -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        said = failure(environment(f"tcp://{address}", tmp_path))
    assert "no Faktory" in said
    assert "is that port Faktory's own (7419)" in said


def test_tls_asked_of_a_plain_server(tmp_path: Path) -> None:
    with server(b'+HI {"v":2}\r\n') as address:
        said = failure(environment(f"tcp+tls://{address}", tmp_path))
    assert "a Faktory without TLS is tcp://" in said


def test_a_journal_without_room_is_not_to_be_left_for_another_one(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", f"ulimit -f 0; exec '{sys.executable}' -m sidecar check"],
        env=clean_environment(environment("tcp://127.0.0.1:1", tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "File too large; free some space there, or raise the quota: until then no job is taken" in ended.stdout


def test_an_unwritable_journal_is_a_wrong_setting(tmp_path: Path) -> None:
    ended = sidecar(
        "check",
        "--ack",
        "disk",
        environ=environment("tcp://127.0.0.1:1", tmp_path, SIDECAR_JOURNAL_DIR="/proc/journal"),
    )
    assert ended.returncode == 2
    assert "journal   fail /proc/journal" in ended.stdout


def test_a_port_in_use_is_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = sidecar("check", environ=environment("tcp://127.0.0.1:1", tmp_path, SIDECAR_LISTEN=listen))
    assert f"ports     warn {listen} (Faktory: in use)" in ended.stdout
    assert ended.returncode == 1


@pytest.mark.parametrize(("settings", "why"), [({"SIDECAR_ACK": "memory"}, "SIDECAR_ACK=memory")])
def test_modes_without_a_journal(settings: dict[str, str], why: str, tmp_path: Path) -> None:
    ended = sidecar("check", environ=environment("tcp://127.0.0.1:1", tmp_path, **settings))
    assert f"journal   off  {why}" in ended.stdout
