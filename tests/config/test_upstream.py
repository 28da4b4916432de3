"""Which server is upstream: the variables that name it, the parts of its URL, and what it must not be."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from sidecar.config import Loaded, Secret, UpstreamAddress, listen_context, load, upstream_context
from sidecar.config.addresses import resolve_quickly
from sidecar.config.loading import default_journal_dir
from sidecar.errors import StartError


def loaded(environ: dict[str, str], addresses: Sequence[str] = ()) -> Loaded:
    return load({"HOME": "/home/me", **environ}, {}, resolve=lambda host: addresses)


def refused(environ: dict[str, str], addresses: Sequence[str] = ()) -> str:
    """The single line of the error that the settings end in."""
    with pytest.raises(StartError) as caught:
        loaded(environ, addresses)
    assert caught.value.exit_code == 2
    [line] = str(caught.value).splitlines()
    return line


PRECEDENCE = [
    ({"FAKTORY_URL": "tcp://c"}, "c", "environment FAKTORY_URL"),
    ({"FAKTORY_PROVIDER": "MY_URL", "MY_URL": "tcp://b", "FAKTORY_URL": "tcp://c"}, "b", "environment MY_URL"),
    (
        {"SIDECAR_UPSTREAM": "tcp://a", "FAKTORY_PROVIDER": "NOT_SET", "FAKTORY_URL": "tcp://c"},
        "a",
        "environment SIDECAR_UPSTREAM",
    ),
]


@pytest.mark.parametrize(("environ", "host", "source"), PRECEDENCE)
def test_precedence(environ: dict[str, str], host: str, source: str) -> None:
    result = loaded(environ)
    assert result.settings.upstream.host == host
    assert result.sources["SIDECAR_UPSTREAM"] == source


def test_a_flag_wins_and_nothing_else_is_looked_at() -> None:
    result = load({"FAKTORY_PROVIDER": "NOT_SET"}, {"SIDECAR_UPSTREAM": "tcp://flag"})
    assert result.settings.upstream.host == "flag"
    assert result.sources["SIDECAR_UPSTREAM"] == "flag --upstream"


def test_no_upstream_names_the_way_and_the_demo() -> None:
    line = refused({})
    assert "SIDECAR_UPSTREAM=tcp://:password@host:7419" in line
    assert "demo" in line


def test_a_provider_that_is_not_set() -> None:
    assert refused({"FAKTORY_PROVIDER": "MY_URL"}).startswith("FAKTORY_PROVIDER is 'MY_URL': expected")


def test_a_provider_that_is_a_url_is_not_shown() -> None:
    line = refused({"FAKTORY_PROVIDER": "tcp://:s3cret@host"})
    assert line.startswith("FAKTORY_PROVIDER: expected the name")
    assert "s3cret" not in line


URLS = [
    ("tcp://host", UpstreamAddress(host="host", port=7419), "tcp://host:7419"),
    ("tcp://HOST.example:1/", UpstreamAddress(host="host.example", port=1), "tcp://host.example:1"),
    ("tcp://:p@h", UpstreamAddress(host="h", port=7419, password=Secret("p")), "tcp://:***@h:7419"),
    ("tcp://u@h", UpstreamAddress(host="h", port=7419, username="u"), "tcp://u@h:7419"),
    (
        "tcp+tls://u%40x:p%3A%2F@h:5",
        UpstreamAddress(host="h", port=5, tls=True, username="u@x", password=Secret("p:/")),
        "tcp+tls://u@x:***@h:5",
    ),
    ("tcp://:a:b@c@h", UpstreamAddress(host="h", port=7419, password=Secret("a:b@c")), "tcp://:***@h:7419"),
    ("tcp://[::1]:8", UpstreamAddress(host="::1", port=8), "tcp://[::1]:8"),
    ("tcp://10.0.0.1", UpstreamAddress(host="10.0.0.1", port=7419), "tcp://10.0.0.1:7419"),
]


@pytest.mark.parametrize(("url", "address", "display"), URLS)
def test_urls(url: str, address: UpstreamAddress, display: str) -> None:
    upstream = loaded({"SIDECAR_UPSTREAM": url}).settings.upstream
    assert upstream == address
    assert upstream.display == str(upstream) == display


def test_the_password_of_its_own_setting_wins_over_the_urls() -> None:
    url = {"SIDECAR_UPSTREAM": "tcp://:from-url@h"}
    own = loaded({**url, "SIDECAR_UPSTREAM_PASSWORD": "own"})
    assert own.settings.upstream.password == Secret("own")
    assert own.sources["SIDECAR_UPSTREAM_PASSWORD"] == "environment SIDECAR_UPSTREAM_PASSWORD"
    from_url = loaded(url)
    assert from_url.settings.upstream.password == Secret("from-url")
    assert from_url.sources["SIDECAR_UPSTREAM_PASSWORD"] == "environment SIDECAR_UPSTREAM"
    assert from_url.settings.upstream.identity == "tcp://h:7419"


ITSELF = [
    ("tcp://localhost:7419", "localhost:7419", ()),
    ("tcp://127.0.0.1:7419", "localhost:7419", ()),
    ("tcp://[::1]:7419", "localhost:7419", ()),
    ("tcp://[::ffff:127.0.0.1]:7419", "localhost:7419", ()),
    ("tcp://0.0.0.0:7419", "127.0.0.1:7419", ()),
    ("tcp://app.localhost:7419", "[::1]:7419", ()),
    ("tcp://localhost:7419", "0.0.0.0:7419", ()),
    ("tcp://127.3.4.5:7419", "0.0.0.0:7419", ()),
    ("tcp://faktory:7419", "localhost:7419", ("127.0.0.1",)),
    ("tcp://faktory:7419", "0.0.0.0:7419", ("127.0.0.1",)),
    ("tcp://pod-1:7419", "pod-1:7419", ()),
]


@pytest.mark.parametrize(("url", "listen", "addresses"), ITSELF)
def test_the_sidecar_is_not_its_own_upstream(url: str, listen: str, addresses: Sequence[str]) -> None:
    environ = {"SIDECAR_UPSTREAM": url, "SIDECAR_LISTEN": listen, "SIDECAR_LISTEN_PASSWORD": "x"}
    line = refused(environ, addresses)
    assert line.startswith(f"SIDECAR_UPSTREAM is '{loaded_display(url)}'")
    assert f"the sidecar itself (SIDECAR_LISTEN is '{listen}')" in line


def loaded_display(url: str) -> str:
    return loaded({"SIDECAR_UPSTREAM": url, "SIDECAR_LISTEN": "localhost:1"}).settings.upstream.display


def test_nor_is_its_http_endpoint() -> None:
    assert "SIDECAR_HTTP_LISTEN" in refused({"SIDECAR_UPSTREAM": "tcp://localhost:3000"})


OTHERS = [
    ("tcp://localhost:7420", "localhost:7419", ()),
    ("tcp://localhost:7419", "localhost:0", ()),
    ("tcp://faktory:7419", "localhost:7419", ("10.255.255.1",)),
    ("tcp://faktory:7419", "0.0.0.0:7419", ("192.0.2.1",)),
    ("tcp://faktory:7419", "localhost:7419", ()),
]


@pytest.mark.parametrize(("url", "listen", "addresses"), OTHERS)
def test_other_servers_are_fine(url: str, listen: str, addresses: Sequence[str]) -> None:
    environ = {"SIDECAR_UPSTREAM": url, "SIDECAR_LISTEN": listen, "SIDECAR_LISTEN_PASSWORD": "x"}
    assert str(loaded(environ, addresses).settings.listen[0]) == listen


def test_names_are_resolved_and_a_dead_name_server_does_not_hold_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "127.0.0.1" in resolve_quickly("localhost")

    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert resolve_quickly("faktory") == []


UP = {"SIDECAR_UPSTREAM": "tcp://faktory"}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SIDECAR_LISTEN": "0.0.0.0:7419"}, "demands SIDECAR_LISTEN_PASSWORD"),
        ({"SIDECAR_LISTEN": "localhost:1,10.1.2.3:7419"}, "'10.1.2.3:7419': an address beyond loopback"),
        ({"SIDECAR_LISTEN": "[::]:7419"}, "demands SIDECAR_LISTEN_PASSWORD"),
        ({"SIDECAR_LISTEN": "pod-1:7419"}, "demands SIDECAR_LISTEN_PASSWORD"),
        ({"SIDECAR_HTTP_LISTEN": "0.0.0.0:3000"}, "demands SIDECAR_HTTP_TOKEN"),
        ({"SIDECAR_ACK": "disk", "BATCH_AUTO_ENABLED": "false"}, "BATCH_AUTO_ENABLED=false"),
        ({"SIDECAR_LISTEN": "127.0.0.1:3000"}, "SIDECAR_LISTEN and SIDECAR_HTTP_LISTEN both want localhost:3000"),
        (
            {"SIDECAR_HTTP_LISTEN": "127.0.0.1:9", "SIDECAR_OPS_LISTEN": "0.0.0.0:9"},
            "SIDECAR_HTTP_LISTEN and SIDECAR_OPS_LISTEN both want 0.0.0.0:9",
        ),
    ],
)
def test_refused_combinations(environ: dict[str, str], words: str) -> None:
    assert words in refused({**UP, **environ})


@pytest.mark.parametrize(
    "environ",
    [
        {"SIDECAR_LISTEN": "127.9.9.9:7419,[::1]:7419"},
        {"SIDECAR_OPS_LISTEN": "0.0.0.0:9100"},
        {"BATCH_AUTO_ENABLED": "false"},
        {"BATCH_AUTO_ENABLED": "true", "SIDECAR_ACK": "memory"},
        {"SIDECAR_LISTEN": "localhost:0", "SIDECAR_HTTP_LISTEN": "localhost:0"},
    ],
)
def test_allowed_combinations(environ: dict[str, str]) -> None:
    assert loaded({**UP, **environ}).settings.upstream.host == "faktory"


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"HOME": "/home/me"}, "linux", "/home/me/.local/state"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "/state"}, "linux", "/state"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "relative"}, "linux", "/home/me/.local/state"),
        ({"HOME": "/Users/me"}, "darwin", "/Users/me/Library/Application Support"),
        ({"HOME": "/Users/me", "XDG_STATE_HOME": "/state"}, "darwin", "/state"),
    ],
)
def test_the_journal_is_in_the_users_state_directory(environ: dict[str, str], platform: str, expected: str) -> None:
    upstream = UpstreamAddress(host="fe80::1", port=7419)
    directory = default_journal_dir(upstream, environ, platform)
    assert directory == Path(expected) / "faktory-sidecar" / "fe80--1_7419"


class Certificates:
    """An authority, a server's certificate, and another authority's."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("faktory")
        self.ca, self.cert, self.key = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
        self.both, self.other_key = directory / "both.pem", directory / "other.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        server.cert_chain_pems[0].write_to_path(str(self.cert))
        server.private_key_pem.write_to_path(str(self.key))
        server.private_key_and_cert_chain_pem.write_to_path(str(self.both))
        authority.issue_cert("other").private_key_pem.write_to_path(str(self.other_key))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_good_tls_settings(certificates: Certificates) -> None:
    settings = loaded(
        {
            "SIDECAR_UPSTREAM": "tcp+tls://faktory",
            "SIDECAR_UPSTREAM_TLS_CA": str(certificates.ca),
            "SIDECAR_UPSTREAM_TLS_CERT": str(certificates.both),
            "SIDECAR_LISTEN_TLS_CERT": str(certificates.cert),
            "SIDECAR_LISTEN_TLS_KEY": str(certificates.key),
        }
    ).settings
    assert upstream_context(settings.upstream).check_hostname
    assert settings.listen_tls_cert == certificates.cert
    assert listen_context(certificates.cert, certificates.key).cert_store_stats()["x509"] >= 0


def test_bad_tls_settings(certificates: Certificates) -> None:
    tls = {"SIDECAR_UPSTREAM": "tcp+tls://faktory"}
    cases: list[tuple[dict[str, str], str]] = [
        ({**UP, "SIDECAR_UPSTREAM_TLS_CA": str(certificates.ca)}, "expected tcp+tls://"),
        ({**tls, "SIDECAR_UPSTREAM_TLS_CA": str(certificates.key)}, "no usable certificate"),
        ({**tls, "SIDECAR_UPSTREAM_TLS_KEY": str(certificates.key)}, "expected SIDECAR_UPSTREAM_TLS_CERT"),
        ({**tls, "SIDECAR_UPSTREAM_TLS_CERT": str(certificates.cert)}, "its own, unencrypted key"),
        (
            {
                **UP,
                "SIDECAR_LISTEN_TLS_CERT": str(certificates.cert),
                "SIDECAR_LISTEN_TLS_KEY": str(certificates.other_key),
            },
            "SIDECAR_LISTEN_TLS_CERT: ",
        ),
        ({**UP, "SIDECAR_LISTEN_TLS_KEY": str(certificates.key)}, "expected SIDECAR_LISTEN_TLS_CERT beside it"),
    ]
    for environ, words in cases:
        assert words in refused(environ)
