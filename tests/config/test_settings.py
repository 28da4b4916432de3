"""Each setting: what it takes, what it refuses, and where its value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config import (
    DEFAULT_ACK,
    SETTINGS,
    Ack,
    Bind,
    Loaded,
    LogFormat,
    LogLevel,
    Secret,
    Settings,
    UpstreamAddress,
    load,
)
from sidecar.errors import StartError

UPSTREAM = {"SIDECAR_UPSTREAM": "tcp://faktory.example.com:7419"}
SECRETS = {
    "SIDECAR_LISTEN_PASSWORD": "listen-secret",
    "SIDECAR_HTTP_TOKEN": "http-secret",
    "SIDECAR_UPSTREAM_PASSWORD": "upstream-secret",
}


def loaded(environ: dict[str, str], flags: dict[str, str] | None = None) -> Loaded:
    """The settings, with upstream's name known to nobody."""
    return load({"HOME": "/home/me", **UPSTREAM, **environ}, flags or {}, resolve=lambda host: [])


def refused(environ: dict[str, str], flags: dict[str, str] | None = None) -> list[str]:
    """The lines of the error that the settings end in."""
    with pytest.raises(StartError) as caught:
        loaded(environ, flags)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_defaults() -> None:
    assert loaded({}).settings == Settings(
        upstream=UpstreamAddress(host="faktory.example.com", port=7419),
        listen=(Bind("localhost", 7419),),
        listen_password=None,
        listen_tls_cert=None,
        listen_tls_key=None,
        http_listen=(Bind("localhost", 3000),),
        http_token=None,
        ops_listen=(),
        ack=DEFAULT_ACK,
        journal_dir=Path("/home/me/.local/state/faktory-sidecar/faktory.example.com_7419"),
        journal_max_bytes=1 << 30,
        memory_max_bytes=64 << 20,
        pipeline_depth=64,
        drain_timeout=25.0,
        log_level=LogLevel.INFO,
        log_format=LogFormat.AUTO,
        batch_max_size=100,
        batch_max_delay=0.05,
        batch_max_bytes=1 << 20,
        auto_batch=True,
        adopt_journal=False,
    )


GOOD = [
    ("SIDECAR_LISTEN", "127.0.0.1:0", "listen", (Bind("127.0.0.1", 0),)),
    ("SIDECAR_LISTEN", "[::1]:7419, LOCALHOST:7420", "listen", (Bind("::1", 7419), Bind("localhost", 7420))),
    ("SIDECAR_LISTEN", "0.0.0.0:7419", "listen", (Bind("0.0.0.0", 7419),)),
    ("SIDECAR_LISTEN", "localhost:1,localhost:1", "listen", (Bind("localhost", 1),)),
    ("SIDECAR_LISTEN_PASSWORD", "a:b@c ", "listen_password", Secret("a:b@c ")),
    ("SIDECAR_HTTP_LISTEN", "off", "http_listen", ()),
    ("SIDECAR_HTTP_LISTEN", "Off", "http_listen", ()),
    ("SIDECAR_HTTP_LISTEN", "pod-7:80", "http_listen", (Bind("pod-7", 80),)),
    ("SIDECAR_HTTP_TOKEN", "t", "http_token", Secret("t")),
    ("SIDECAR_OPS_LISTEN", "0.0.0.0:9100", "ops_listen", (Bind("0.0.0.0", 9100),)),
    ("SIDECAR_OPS_LISTEN", "off", "ops_listen", ()),
    ("SIDECAR_ACK", "disk", "ack", Ack.DISK),
    ("SIDECAR_ACK", "UPSTREAM", "ack", Ack.UPSTREAM),
    ("SIDECAR_ACK", " memory ", "ack", Ack.MEMORY),
    ("SIDECAR_JOURNAL_DIR", "/var/lib/j", "journal_dir", Path("/var/lib/j")),
    ("SIDECAR_JOURNAL_MAX_BYTES", "67108864", "journal_max_bytes", 64 << 20),
    ("SIDECAR_JOURNAL_MAX_BYTES", "512MiB", "journal_max_bytes", 512 << 20),
    ("SIDECAR_JOURNAL_MAX_BYTES", "1Gi", "journal_max_bytes", 1 << 30),
    ("SIDECAR_JOURNAL_MAX_BYTES", "1.5 gib", "journal_max_bytes", 3 << 29),
    ("SIDECAR_JOURNAL_MAX_BYTES", "2G", "journal_max_bytes", 2_000_000_000),
    ("SIDECAR_JOURNAL_MAX_BYTES", "16TiB", "journal_max_bytes", 16 << 40),
    ("SIDECAR_MEMORY_MAX_BYTES", "1MiB", "memory_max_bytes", 1 << 20),
    ("SIDECAR_MEMORY_MAX_BYTES", "8MB", "memory_max_bytes", 8_000_000),
    ("SIDECAR_PIPELINE_DEPTH", "1", "pipeline_depth", 1),
    ("SIDECAR_PIPELINE_DEPTH", "1000", "pipeline_depth", 1000),
    ("SIDECAR_DRAIN_TIMEOUT_S", "0", "drain_timeout", 0.0),
    ("SIDECAR_DRAIN_TIMEOUT_S", "2.5", "drain_timeout", 2.5),
    ("SIDECAR_LOG_LEVEL", "Debug", "log_level", LogLevel.DEBUG),
    ("SIDECAR_LOG_FORMAT", "json", "log_format", LogFormat.JSON),
    ("BATCH_MAX_SIZE", "1", "batch_max_size", 1),
    ("BATCH_MAX_SIZE", "10000", "batch_max_size", 10_000),
    ("BATCH_MAX_DELAY_MS", "0", "batch_max_delay", 0.0),
    ("BATCH_MAX_DELAY_MS", "60000", "batch_max_delay", 60.0),
    ("BATCH_MAX_BYTES", "1KiB", "batch_max_bytes", 1024),
    ("BATCH_AUTO_ENABLED", "false", "auto_batch", False),
    ("BATCH_AUTO_ENABLED", "Yes", "auto_batch", True),
    ("BATCH_AUTO_ENABLED", "0", "auto_batch", False),
]


@pytest.mark.parametrize(("name", "text", "attribute", "value"), GOOD)
def test_good_values_from_both_sources(name: str, text: str, attribute: str, value: object) -> None:
    needed = {"SIDECAR_LISTEN_PASSWORD": "x", "SIDECAR_HTTP_TOKEN": "x"}
    from_environment = loaded({**needed, name: text})
    from_flag = loaded(needed, {name: text})

    assert getattr(from_environment.settings, attribute) == value
    assert from_environment.settings == from_flag.settings
    assert from_environment.sources[name] == f"environment {name}"
    assert from_flag.sources[name] == f"flag {SETTINGS[name].flag}"


BAD = [
    ("SIDECAR_UPSTREAM", "host:7419", "tcp://:password@host:7419"),
    ("SIDECAR_UPSTREAM", "http://host:7419", "tcp://:password@host:7419"),
    ("SIDECAR_UPSTREAM", "tcp://host:99999", "port from 1 to 65,535"),
    ("SIDECAR_UPSTREAM", "tcp://host:0", "port from 1 to 65,535"),
    ("SIDECAR_UPSTREAM", "tcp://host:7419/0", "tcp://:password@host:7419"),
    ("SIDECAR_UPSTREAM", "tcp://[12.3:7419", "tcp://:password@host:7419"),
    ("SIDECAR_UPSTREAM", "tcp://[12.3]:7419", "IPv6"),
    ("SIDECAR_LISTEN", "7419", "HOST:PORT"),
    ("SIDECAR_LISTEN", ":7419", "HOST:PORT"),
    ("SIDECAR_LISTEN", "localhost", "HOST:PORT"),
    ("SIDECAR_LISTEN", "::1:7419", "[::1]:7419"),
    ("SIDECAR_LISTEN", "localhost:65536", "HOST:PORT"),
    ("SIDECAR_LISTEN", "localhost:7419,", "HOST:PORT"),
    ("SIDECAR_LISTEN", "off", "HOST:PORT"),
    ("SIDECAR_HTTP_LISTEN", "http://localhost:3000", "HOST:PORT"),
    ("SIDECAR_HTTP_LISTEN", "none", "off"),
    ("SIDECAR_OPS_LISTEN", "3001", "off"),
    ("SIDECAR_ACK", "fsync", "expected disk, upstream or memory"),
    ("SIDECAR_JOURNAL_DIR", "/etc/hostname", "directory"),
    ("SIDECAR_JOURNAL_MAX_BYTES", "1MiB", "from 64 MiB to 16 TiB"),
    ("SIDECAR_JOURNAL_MAX_BYTES", "17TiB", "from 64 MiB to 16 TiB"),
    ("SIDECAR_JOURNAL_MAX_BYTES", "1 GigaByte", "512MiB"),
    ("SIDECAR_JOURNAL_MAX_BYTES", "-1", "512MiB"),
    ("SIDECAR_MEMORY_MAX_BYTES", "100iB", "from 1 MiB to 64 GiB"),
    ("SIDECAR_PIPELINE_DEPTH", "0", "from 1 to 1,000"),
    ("SIDECAR_PIPELINE_DEPTH", "1001", "from 1 to 1,000"),
    ("SIDECAR_DRAIN_TIMEOUT_S", "-1", "from 0 to 86,400"),
    ("SIDECAR_DRAIN_TIMEOUT_S", "nan", "from 0 to 86,400"),
    ("SIDECAR_DRAIN_TIMEOUT_S", "25s", "from 0 to 86,400"),
    ("SIDECAR_LOG_LEVEL", "verbose", "debug, info, warning or error"),
    ("SIDECAR_LOG_FORMAT", "text", "auto, console or json"),
    ("BATCH_MAX_SIZE", "0", "from 1 to 10,000"),
    ("BATCH_MAX_SIZE", "10001", "from 1 to 10,000"),
    ("BATCH_MAX_SIZE", "1e3", "whole number"),
    ("BATCH_MAX_SIZE", "9" * 5000, "whole number"),
    ("BATCH_MAX_SIZE", "٣", "whole number"),
    ("BATCH_MAX_DELAY_MS", "50ms", "milliseconds from 0 to 60,000"),
    ("BATCH_MAX_DELAY_MS", "60001", "milliseconds from 0 to 60,000"),
    ("BATCH_MAX_BYTES", "10", "from 1 KiB to 64 MiB"),
    ("BATCH_AUTO_ENABLED", "maybe", "true or false"),
    ("SIDECAR_UPSTREAM_TLS_CA", "/no/such/file", "readable file"),
    ("SIDECAR_UPSTREAM_TLS_CERT", "/etc", "readable file"),
    ("SIDECAR_UPSTREAM_TLS_KEY", "/no/such/file", "readable file"),
    ("SIDECAR_LISTEN_TLS_CERT", "/no/such/file", "readable file"),
    ("SIDECAR_LISTEN_TLS_KEY", "/no/such/file", "readable file"),
]


@pytest.mark.parametrize(("name", "text", "allowed"), BAD)
def test_bad_values_name_setting_value_and_what_is_allowed(name: str, text: str, allowed: str) -> None:
    [line] = refused({name: text})
    assert line.startswith(f"{name} is ")
    assert name == "SIDECAR_UPSTREAM" or repr(text)[:100] in line
    assert allowed in line
    assert len(line) < 500

    [line] = refused({}, {name: text})
    assert line.startswith(f"{SETTINGS[name].flag} is ")


def test_every_setting_is_in_a_table() -> None:
    tabled = {row[0] for row in (*GOOD, *BAD)}
    assert set(SETTINGS) - tabled <= {"SIDECAR_UPSTREAM_PASSWORD"}


def test_all_wrong_ones_are_listed() -> None:
    lines = refused({"BATCH_MAX_SIZE": "0", "SIDECAR_ACK": "x", "SIDECAR_LISTEN_PASSWORD_FILE": "/no/such"})
    assert len(lines) == 3
    for name in ("BATCH_MAX_SIZE", "SIDECAR_ACK", "SIDECAR_LISTEN_PASSWORD_FILE"):
        assert any(line.startswith(name) for line in lines)


def test_flags_win_over_the_environment_and_its_mistakes() -> None:
    result = loaded({"SIDECAR_ACK": "wrong", "BATCH_MAX_SIZE": "7"}, {"SIDECAR_ACK": "memory"})
    assert result.settings.ack is Ack.MEMORY
    assert result.settings.batch_max_size == 7
    assert result.sources["SIDECAR_ACK"] == "flag --ack"
    assert result.sources["SIDECAR_LISTEN"] == "default"


def test_an_empty_variable_counts_as_absent_an_empty_flag_does_not() -> None:
    assert loaded({"BATCH_MAX_SIZE": ""}).settings.batch_max_size == 100
    [line] = refused({}, {"BATCH_MAX_SIZE": ""})
    assert line.startswith("--batch-max-size is ''")


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_come_from_files_too(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("päss word\n")
    by_file = loaded({f"{name}_FILE": str(file)})
    assert by_file.settings == loaded({name: "päss word"}).settings
    assert by_file.sources[name] == f"environment {name}_FILE"
    by_flag = loaded({name: "other"}, {f"{name}_FILE": str(file)})
    assert by_flag.settings == by_file.settings
    assert by_flag.sources[name] == f"flag {SETTINGS[name].flag}-file"


def test_upstream_comes_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("tcp://:hush@other:1234\r\n")
    settings = load({"SIDECAR_UPSTREAM_FILE": str(tmp_path / "url")}, {}).settings
    assert settings.upstream.display == "tcp://:***@other:1234"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\nb", b"x" * 100_000])
def test_unusable_secret_files(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    [line] = refused({"SIDECAR_HTTP_TOKEN_FILE": str(file)})
    assert "SIDECAR_HTTP_TOKEN_FILE" in line
    assert "expected" in line


def test_a_secret_and_its_file_together_are_refused() -> None:
    [line] = refused({"SIDECAR_HTTP_TOKEN": "a", "SIDECAR_HTTP_TOKEN_FILE": "/b"})
    assert line == "SIDECAR_HTTP_TOKEN and SIDECAR_HTTP_TOKEN_FILE are both set; give one of the two"


def test_secrets_are_never_shown() -> None:
    result = loaded({**SECRETS, "SIDECAR_UPSTREAM": "tcp://me:url-secret@host:1"})
    for shown in (repr(result), str(result), f"{result.settings}", str(result.settings.upstream)):
        assert "-secret" not in shown
    lines = refused({"SIDECAR_HTTP_TOKEN": "two\nlines-secret", "SIDECAR_LISTEN_PASSWORD": "tab\tsecret"})
    assert len(lines) == 2
    assert not any("secret" in line.lower().replace("sidecar", "") for line in lines)


@pytest.mark.parametrize(
    "url",
    [
        "tcp:/:s3cret@host:7419",
        "tcp://:s3cret",
        "s3cret",
        "tcp://:s3cret@host:port",
        "tcp://:s3cret@",
        "http://u:s3cret@host:1/",
        "tcp://:s3cret@host:7419/s3cret",
        "tcp://s3cret:s3cret@s3cret@host:99999",
    ],
)
def test_a_wrong_url_does_not_tell_its_password(url: str) -> None:
    [line] = refused({"SIDECAR_UPSTREAM": url})
    assert "s3cret" not in line
    assert line.startswith("SIDECAR_UPSTREAM is '")


UNKNOWN = [
    ("SIDECAR_AKC", "SIDECAR_ACK"),
    ("SIDECAR_UPSTREAM_URL", "SIDECAR_UPSTREAM"),
    ("BATCH_MAX_DELAY", "BATCH_MAX_DELAY_MS"),
    ("SIDECAR_HTTP_TOKENFILE", "SIDECAR_HTTP_TOKEN_FILE"),
    ("SIDECAR_ACK_FILE", "SIDECAR_ACK"),
]


@pytest.mark.parametrize(("name", "nearest"), UNKNOWN)
def test_unknown_names_are_warned_about_with_the_nearest(name: str, nearest: str) -> None:
    assert loaded({name: "1"}).warnings == (f"{name} is not a setting and is ignored; did you mean {nearest}?",)


def test_a_name_like_no_other_is_warned_about() -> None:
    [warning] = loaded({"BATCH_QQQQQQQQQQQQ": "1"}).warnings
    assert "BATCH_QQQQQQQQQQQQ is not a setting" in warning


@pytest.mark.parametrize(
    "name",
    [
        "SIDECAR_PORT",
        "SIDECAR_PORT_7419_TCP_ADDR",
        "SIDECAR_SERVICE_HOST",
        "SIDECAR_SERVICE_PORT_HTTP",
        "SIDECAR_API_SERVICE_HOST",
        "BATCH_WORKER_PORT",
        "BATCH_WORKER_PORT_80_TCP",
        "sidecar_ack",
        "AWS_BATCH_JOB_ID",
    ],
)
def test_what_kubernetes_injects_is_not_warned_about(name: str) -> None:
    assert loaded({name: "tcp://10.0.0.1:80"}).warnings == ()


def test_settings_are_frozen() -> None:
    settings = loaded({}).settings
    with pytest.raises(AttributeError):
        settings.batch_max_size = 1  # type: ignore[misc]
    assert not hasattr(settings, "__dict__")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIDECAR_UPSTREAM", "tcp://h\udcff:7419"),
        ("SIDECAR_UPSTREAM", "tcp://zo\udce9:pw@host:7419"),
        ("SIDECAR_LISTEN_PASSWORD", "hush\udcff"),
        ("SIDECAR_JOURNAL_DIR", "/tmp/\udcff"),
        ("SIDECAR_LISTEN", "\udcff:1"),
    ],
)
def test_bytes_that_are_no_text_are_refused_by_name(name: str, text: str) -> None:
    [problem] = refused({name: text})
    assert problem == f"{name} can't be read as utf-8: expected text in UTF-8"


def test_a_home_that_is_no_text_asks_for_a_directory() -> None:
    [problem] = refused({"SIDECAR_UPSTREAM": "tcp://host:7419", "HOME": "/home/zo\udce9"})
    assert "SIDECAR_JOURNAL_DIR" in problem
