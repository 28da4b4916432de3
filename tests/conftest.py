"""Fixtures around the real programs: Faktory with its Redis, Toxiproxy, the sidecar, a raw client.

A test that uses one of the real programs gets the mark `real` by itself. The programs are brought before
the first test runs, so that no test's time limit pays for a build. When one can't be had its tests are
skipped, loudly, on a developer's machine; where the environment has `CI`, they fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme

from sidecar.logs import defects
from tests.real import parts
from tests.real.faktory_server import Certificate, RealFaktory
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient
from tests.real.sidecar_command import SidecarProcess, hear_signals
from tests.real.toxiproxy_server import Toxiproxy

NEEDS: dict[str, tuple[str, ...]] = {
    "faktory_parts": ("redis", "faktory"),
    "toxiproxy_server": ("toxiproxy",),
    "quick_part": ("redis", "faktory-1.9"),
    "old_parts": ("redis", "faktory-1.5", "faktory-0.9"),
    "go_client": ("go-client",),
    "node_clients": ("node-clients",),
    "manifest_checker": ("manifest-checker",),
    "run_program": ("go-client", "node-clients"),
    "chromium": ("chromium",),
    "promtool": ("promtool",),
    "old_sqlite": ("old-sqlite",),
    "old_sqlite_without_json": ("old-sqlite-without-json",),
}
"""The real parts behind each fixture that hands one out."""

brought: dict[str, Path | parts.PartMissing] = {}
"""Every part that was asked for in this run: where it is, or why not."""


def pytest_configure() -> None:
    """Makes signals work in what the tests start, also in a shell's background job and under `nohup`."""
    hear_signals()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test that uses a real part."""
    for item in items:
        if set(getattr(item, "fixturenames", ())) & NEEDS.keys():
            item.add_marker(pytest.mark.real)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Brings the parts that the selected tests use."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    wanted = {part for fixture in NEEDS.keys() & used for part in NEEDS[fixture]}
    if any(item.get_closest_marker("real") for item in session.items):
        wanted |= {"redis", "faktory"}  # for those that ask for their fixtures by name, as they run
    for part in parts.PARTS:
        if part in wanted:
            look_up(part)


def look_up(part: str) -> Path | parts.PartMissing:
    """Where a part is, brought on first use, or why it can't be had."""
    if part not in brought:
        try:
            brought[part] = parts.PARTS[part]()
        except parts.PartMissing as error:
            brought[part] = error
    return brought[part]


def require(part: str) -> Path:
    """Where a part is; ends the test when it can't be had."""
    match look_up(part):
        case Path() as place:
            return place
        case parts.PartMissing() as error:
            message = f"REAL PART MISSING: {part}: {error}"
            if os.environ.get("CI") and not isinstance(error, parts.PartNotInstallable):
                pytest.fail(message, pytrace=False)
            pytest.skip(message)


@pytest.fixture(scope="session")
def faktory_parts() -> None:
    """Ends the test unless the real Faktory and Redis can be had."""
    require("redis")
    require("faktory")


@pytest.fixture(scope="session", params=["faktory-1.5", "faktory-0.9"])
def old_part(request: pytest.FixtureRequest, old_parts: None) -> str:
    """The name of a Faktory without `PUSHB`."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def quick_part() -> str:
    """The name of a Faktory that tells of each trouble of its store at once."""
    require("redis")
    require("faktory-1.9")
    return "faktory-1.9"


@pytest.fixture(scope="session")
def old_parts() -> None:
    """Ends the test unless the old Faktory servers can be had."""
    require("redis")
    require("faktory-1.5")
    require("faktory-0.9")


@pytest.fixture(scope="session")
def go_client() -> Path:
    """Our program around the Go client and worker."""
    return require("go-client")


@pytest.fixture(scope="session")
def old_sqlite() -> Path:
    """The directory with an old SQLite's library."""
    return require("old-sqlite")


@pytest.fixture(scope="session")
def old_sqlite_without_json() -> Path:
    """The same, without its JSON functions."""
    return require("old-sqlite-without-json")


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """The directory with our Node programs."""
    return require("node-clients")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A server certificate for localhost and the loopback addresses, of an authority that nobody knows."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1", "::1")
    made = Certificate(directory / "chain.pem", directory / "key.pem", directory / "authority.pem")
    made.chain.write_bytes(b"".join(part.bytes() for part in server.cert_chain_pems))
    made.key.write_bytes(server.private_key_pem.bytes())
    made.authority.write_bytes(authority.cert_pem.bytes())
    return made


@pytest.fixture(scope="session")
def manifest_checker() -> Path:
    """Our program that reads deployment files with the code of those who will read them."""
    return require("manifest-checker")


@pytest.fixture
def defects_expected() -> None:
    """For a test that makes our own code fail."""


@pytest.fixture(autouse=True)
def _no_defects(request: pytest.FixtureRequest) -> Iterator[None]:
    """A mistake in a callback ends nobody else, in tests neither; so they ask whether there was one."""
    before = dict(defects())
    yield
    if "defects_expected" not in request.fixturenames:
        assert dict(defects()) == before


class FaktoryFactory(Protocol):
    """Starts a Faktory; RealFaktory has the meaning of the options."""

    def __call__(
        self,
        *,
        password: str | None = None,
        tls: Certificate | None = None,
        port: int = 0,
        start: bool = True,
        part: str = "faktory",
    ) -> RealFaktory: ...


@pytest.fixture
def faktory_factory(faktory_parts: None) -> Iterator[FaktoryFactory]:
    """Starts Faktory servers that belong to this test: stop, stall or restart them at will."""
    servers: list[RealFaktory] = []

    def make(
        *,
        password: str | None = None,
        tls: Certificate | None = None,
        port: int = 0,
        start: bool = True,
        part: str = "faktory",
    ) -> RealFaktory:
        server = RealFaktory(password=password, tls=tls, port=port, part=part)
        servers.append(server)
        if start:
            server.start()
        return server

    yield make
    for server in servers:
        server.dispose()


@pytest.fixture(scope="module")
def module_faktory(faktory_parts: None) -> Iterator[RealFaktory]:
    """One Faktory for all tests of a module; tests use `faktory`, which empties it first."""
    server = RealFaktory()
    server.start()
    yield server
    server.dispose()


@pytest.fixture
def faktory(module_faktory: RealFaktory) -> RealFaktory:
    """A running Faktory without jobs, shared with the other tests of the module one after the other.

    Its counters are reset, its workers are not: use a `wid` of your own. Tests that stop it, stall its Redis
    or mind what earlier pushes may have changed in the server take `faktory_factory`.
    """
    module_faktory.start()
    # A FETCH of a worker that is gone blocks on for up to 2 s, and would take a job of this test with it.
    wait_for(lambda: not module_faktory.waiting_fetches(), what="no FETCH of an earlier test waits")
    module_faktory.flush()
    return module_faktory


@pytest.fixture(scope="session")
def toxiproxy_server() -> Iterator[Toxiproxy]:
    """One Toxiproxy for the whole run; tests use `toxiproxy`."""
    require("toxiproxy")
    server = Toxiproxy()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def toxiproxy(toxiproxy_server: Toxiproxy) -> Iterator[Toxiproxy]:
    """Makes links with delay and faults, `toxiproxy.link(faktory.port, round_trip=50)`, for one test."""
    yield toxiproxy_server
    toxiproxy_server.reset()


class SidecarFactory(Protocol):
    """Starts a sidecar.

    Args:
        upstream: URL of its Faktory, or None to leave that to `settings`.
        settings: further environment variables.
        arguments: the command line, `serve` by default.
        program: a module to run in place of `sidecar`.
        wait: return only when it listens.
    """

    def __call__(
        self,
        upstream: str | None,
        settings: dict[str, str] | None = None,
        *,
        arguments: tuple[str, ...] = ("serve",),
        program: str = "sidecar",
        wait: bool = True,
    ) -> SidecarProcess: ...


@pytest.fixture
def sidecar_process(tmp_path: Path) -> Iterator[SidecarFactory]:
    """Starts sidecars as processes, each with a directory of its own; the end of the test kills them.

    For a second start on the first one's journal, pass its `SIDECAR_JOURNAL_DIR` in the settings.
    """
    started: list[SidecarProcess] = []

    def start(
        upstream: str | None,
        settings: dict[str, str] | None = None,
        *,
        arguments: tuple[str, ...] = ("serve",),
        program: str = "sidecar",
        wait: bool = True,
    ) -> SidecarProcess:
        address = {} if upstream is None else {"SIDECAR_UPSTREAM": upstream}
        directory = tmp_path / f"sidecar{len(started)}"
        process = SidecarProcess(directory, address | (settings or {}), arguments, program=program)
        started.append(process)
        if wait:
            process.wait_until_listening()
        return process

    yield start
    for process in started:
        if process.exit_code is None:
            process.kill()


@pytest.fixture
def client() -> Iterator[Callable[..., RawClient]]:
    """Opens raw connections, `client(port, password=None, **options)`, and closes them after the test."""
    opened: list[RawClient] = []

    def connect(port: int, password: str | None = None, **options: Any) -> RawClient:
        connection = RawClient(port, password, **options)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()
