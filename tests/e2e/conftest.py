"""The ways from a client to the real Faktory, each a `Route`: straight, or through a sidecar over a slow link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import Library, Program
from tests.conftest import require
from tests.real.faktory_server import Certificate, RealFaktory
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Toxiproxy

ROUND_TRIP = 30
"""Milliseconds of the link between the sidecar and Faktory."""


@dataclass(frozen=True, slots=True)
class Way:
    """What a route is made of.

    Attributes:
        ack: the sidecar's SIDECAR_ACK; None goes straight to Faktory.
        password: Faktory's password.
        listen_password: the sidecar's own, for its local clients.
        tls: whether Faktory speaks TLS, with a certificate of a private authority.
    """

    name: str
    ack: str | None = None
    password: str | None = None
    listen_password: str | None = None
    tls: bool = False


WAYS = (
    Way("direct"),
    Way("direct-password", password="upstr3am"),  # pyfaktory takes it from the URL without decoding
    Way("sidecar-disk", ack="disk"),
    Way("sidecar-memory-passwords", ack="memory", password="u/p:stre@m", listen_password="l0cal"),
    Way("sidecar-upstream-tls", ack="upstream", password="upstr3am", tls=True),
)


@dataclass(frozen=True, slots=True)
class Route:
    """An open way: where clients connect, and the Faktory at its end."""

    way: Way
    url: str
    port: int
    password: str | None
    faktory: RealFaktory
    sidecar: SidecarProcess | None


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.name)
def open_route(
    request: pytest.FixtureRequest,
    faktory_parts: None,
    toxiproxy_server: Toxiproxy,
    certificate: Certificate,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Route]:
    """One Faktory, and for the ways that have one a sidecar and its link, for all tests of a module."""
    way: Way = request.param
    faktory = RealFaktory(password=way.password, tls=certificate if way.tls else None)
    faktory.start()
    try:
        if way.ack is None:
            yield Route(way, faktory.url, faktory.port, way.password, faktory, None)
        else:
            link = toxiproxy_server.link(faktory.port, round_trip=ROUND_TRIP)
            settings = {"SIDECAR_UPSTREAM": faktory.url_at(link.port), "SIDECAR_ACK": way.ack}
            if way.tls:
                settings["SIDECAR_UPSTREAM_TLS_CA"] = str(certificate.authority)
            if way.listen_password:
                settings["SIDECAR_LISTEN_PASSWORD"] = way.listen_password
            sidecar = SidecarProcess(tmp_path_factory.mktemp("sidecar"), settings)
            try:
                sidecar.wait_until_listening()
                yield Route(way, sidecar.url, sidecar.port, way.listen_password, faktory, sidecar)
            finally:
                if sidecar.exit_code is None:
                    sidecar.kill()
                link.remove()
    finally:
        faktory.dispose()


@pytest.fixture
def route(open_route: Route) -> Route:
    """An open way to an empty Faktory."""
    open_route.faktory.flush()
    return open_route


RunProgram = Callable[..., Program]
"""Starts a program: `run_program(library, url, do=..., jobs=..., ...)`."""


@pytest.fixture
def run_program(tmp_path: Path) -> Iterator[RunProgram]:
    """Starts programs around client libraries; those still running at the end are killed."""
    started: list[Program] = []

    def run(
        library: Library,
        url: str,
        *,
        wrapper: tuple[str, ...] = (),
        settings: dict[str, str] | None = None,
        **scenario: Any,
    ) -> Program:
        if library.part is not None:
            require(library.part)
        directory = tmp_path / f"program{len(started)}"
        program = Program(library, directory, url, scenario, wrapper=wrapper, settings=settings)
        started.append(program)
        return program

    yield run
    for program in started:
        program.end()
