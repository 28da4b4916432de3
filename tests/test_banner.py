"""The sentences of the start, word for word."""

from __future__ import annotations

import pytest

from sidecar import __version__
from sidecar.app.banner import banner
from sidecar.config import Settings, load


def settings(**environ: str) -> Settings:
    return load({"HOME": "/home/me", "SIDECAR_UPSTREAM": "tcp://:hush@faktory.example.com", **environ}, {}).settings


def messages(given: Settings, *, waiting: int = 0) -> list[str]:
    return [line.message for line in banner(given, waiting=waiting)]


def test_the_defaults() -> None:
    assert messages(settings(SIDECAR_ACK="disk")) == [
        f"faktory-sidecar {__version__} -> tcp://:***@faktory.example.com:7419",
        "Producers: FAKTORY_URL=tcp://localhost:7419, nothing else changes",
        "HTTP: http://localhost:3000 (jobs, status page, /docs, /metrics)",
        "+OK means: fsynced in the journal (0 jobs waiting, bound 1 GiB)",
        "Batch config: max_size=100, max_delay=50ms, auto_batch=true",
    ]


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SIDECAR_ACK": "upstream"}, "+OK means: in Faktory, by its own word"),
        ({"SIDECAR_ACK": "memory", "SIDECAR_MEMORY_MAX_BYTES": "8MiB"}, "+OK means: held in memory only (up to 8 MiB)"),
        ({"BATCH_AUTO_ENABLED": "false"}, "overrides SIDECAR_ACK"),
        ({"BATCH_AUTO_ENABLED": "false"}, "Batch config: max_size=100, max_delay=50ms, auto_batch=false"),
        (
            {"BATCH_MAX_SIZE": "7", "BATCH_MAX_DELAY_MS": "0"},
            "Batch config: max_size=7, max_delay=0ms, auto_batch=true",
        ),
        ({"SIDECAR_LISTEN": "[::1]:9"}, "FAKTORY_URL=tcp://[::1]:9,"),
        (
            {"SIDECAR_LISTEN": "0.0.0.0:9", "SIDECAR_LISTEN_PASSWORD": "x"},
            "FAKTORY_URL=tcp://:PASSWORD@localhost:9,",
        ),
        ({"SIDECAR_JOURNAL_MAX_BYTES": "1.5GiB"}, "(1,204 jobs waiting, bound 1.5 GiB)"),
    ],
)
def test_other_settings(environ: dict[str, str], sentence: str) -> None:
    if "SIDECAR_JOURNAL_MAX_BYTES" in environ:
        environ = {**environ, "SIDECAR_ACK": "disk"}
    assert any(sentence in message for message in messages(settings(**environ), waiting=1204))


def test_memory_mode_is_a_warning() -> None:
    assert [line.level for line in banner(settings(SIDECAR_ACK="memory"))].count("warning") == 1
    assert {line.level for line in banner(settings(SIDECAR_ACK="upstream"))} == {"info"}


def test_the_port_that_was_really_bound() -> None:
    given = settings(SIDECAR_LISTEN="localhost:0", SIDECAR_HTTP_LISTEN="[::1]:0")
    lines = banner(given, addresses=["127.0.0.1:41"], http_addresses=["[::1]:42"])
    assert lines[1].message.startswith("Producers: FAKTORY_URL=tcp://localhost:41,")
    assert lines[2].message.startswith("HTTP: http://[::1]:42 ")


def test_http_off_is_not_mentioned() -> None:
    assert not any("HTTP" in message for message in messages(settings(SIDECAR_HTTP_LISTEN="off")))
