"""The image, built and run for real: it serves, drains on SIGTERM with exit code 0, and loses nothing on its volume."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.deploy.container import (
    EXAMPLES_TAG,
    CannotBuild,
    RunningImage,
    UnpackedImage,
    build,
    build_examples,
)
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.ports import free_port
from tests.real.raw_client import RawClient
from tests.real.toxiproxy_server import Link, Toxiproxy

pytestmark = [pytest.mark.alone, pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]

MOST_BYTES = 200 * 1024 * 1024
"""Of the whole image, its base included."""
SLOWEST_START = 5.0
"""Seconds until the local endpoint greets, on a machine that tests share."""


@pytest.fixture(scope="module")
def image() -> Iterator[UnpackedImage]:
    """The image of this checkout, built now."""
    try:
        print(build())
    except CannotBuild as reason:
        pytest.skip(f"IMAGE NOT BUILT: {reason}")
    unpacked = UnpackedImage.unpack()
    yield unpacked
    unpacked.remove()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An empty volume of the image's user."""
    directory = tmp_path / "volume"
    directory.mkdir()
    os.chown(directory, 65532, 65532)
    return directory


class RunImage(Protocol):
    """Runs the image on the test's volume, with a link to the test's Faktory."""

    def __call__(self, *arguments: str) -> RunningImage: ...


@pytest.fixture
def port() -> int:
    """Where the sidecar's local endpoint is."""
    return free_port()


@pytest.fixture
def link(faktory: RealFaktory, toxiproxy: Toxiproxy) -> Link:
    """The way from the container to Faktory, 50 ms a round trip."""
    return toxiproxy.link(faktory.port, round_trip=50)


@pytest.fixture
def run_image(image: UnpackedImage, volume: Path, link: Link, port: int) -> Iterator[RunImage]:
    """Runs the image; what still runs at the end is killed."""
    started: list[RunningImage] = []
    settings = {
        "SIDECAR_UPSTREAM": f"tcp://127.0.0.1:{link.port}",
        "SIDECAR_LISTEN": f"127.0.0.1:{port}",
        "SIDECAR_HTTP_LISTEN": "off",
    }

    def run(*arguments: str) -> RunningImage:
        container = RunningImage(image, volume, settings, arguments or None)
        started.append(container)
        return container

    yield run
    for container in started:
        container.kill()


def push(port: int, count: int) -> set[str]:
    """Pushes jobs one by one; the jids, all of them acknowledged."""
    jids = {uuid.uuid4().hex for _ in range(count)}
    with RawClient(port) as client:
        for jid in jids:
            assert client.push({"jid": jid, "jobtype": "Add", "args": [{"a": 1, "b": 2}]}) == "OK"
    return jids


def arrived(faktory: RealFaktory, jids: set[str]) -> Callable[[], bool]:
    """Whether Faktory has all of these jobs."""
    return lambda: jids <= {job["jid"] for job in faktory.stored()}


def test_configuration_and_size(image: UnpackedImage) -> None:
    assert image.config["User"] == "65532:65532"
    assert image.config["Entrypoint"] == ["faktory-sidecar"]
    assert image.config["Cmd"] == ["serve"]
    assert image.config["Healthcheck"]["Test"] == ["CMD", "faktory-sidecar", "healthcheck"]
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Volumes"] == {"/var/lib/faktory-sidecar": {}}
    assert image.size < MOST_BYTES, f"{image.size:,} bytes"
    print(f"image: {image.size / 1e6:.0f} MB unpacked")


def test_nothing_of_the_build_is_left(image: UnpackedImage) -> None:
    venv = image.root / "opt" / "faktory-sidecar"
    assert not list(venv.rglob("pip")), "pip isn't needed at run time"
    assert not (image.root / "src").exists()
    assert not (image.root / "wheel").exists()
    assert not (image.root / "wheels").exists()


def test_it_runs_unprivileged_as_pid_1_and_listens_soon(run_image: RunImage, port: int, volume: Path) -> None:
    container = run_image()
    seconds = container.wait_until_listening(port)
    status = container.status()
    assert status["Uid"].split() == ["65532"] * 4
    assert status["Groups"] == ""
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[-1] == "1"
    assert {path.lstat().st_uid for path in volume.rglob("*")} == {65532}
    assert seconds < SLOWEST_START
    print(f"start: {seconds:.2f} s until the first greeting")
    container.signal(signal.SIGTERM)
    assert container.wait() == 0, container.log


def test_healthcheck_tells_a_running_sidecar_from_none(run_image: RunImage, port: int) -> None:
    assert run_image("healthcheck").wait() == 1
    container = run_image()
    container.wait_until_listening(port)
    check = run_image("healthcheck")
    assert check.wait() == 0, check.log


def test_it_drains_on_sigterm(run_image: RunImage, port: int, faktory: RealFaktory) -> None:
    container = run_image()
    container.wait_until_listening(port)
    jids = push(port, 200)
    container.signal(signal.SIGTERM)
    assert container.wait() == 0, container.log
    # Nothing to wait for: what was acknowledged is there by the end.
    assert {job["jid"] for job in faktory.stored()} == jids
    assert container.last_words.read_text() == ""


def test_a_restart_in_an_outage_loses_nothing(run_image: RunImage, port: int, faktory: RealFaktory, link: Link) -> None:
    link.disable()
    container = run_image()
    container.wait_until_listening(port)
    jids = push(port, 200)
    container.signal(signal.SIGTERM)
    assert container.wait() == 0, container.log
    assert container.last_words.read_text().startswith("Stopped. 200 jobs stay in the journal")
    assert faktory.stored() == []
    again = run_image()
    again.wait_until_listening(port)
    link.enable()
    wait_for(arrived(faktory, jids), what="all jobs arrive", timeout=30)
    again.signal(signal.SIGTERM)
    assert again.wait() == 0, again.log
    assert sorted(job["jid"] for job in faktory.stored()) == sorted(jids), "each of them once"


def test_a_kill_loses_nothing(run_image: RunImage, port: int, faktory: RealFaktory, link: Link) -> None:
    link.disable()
    container = run_image()
    container.wait_until_listening(port)
    jids = push(port, 200)
    container.kill()
    link.enable()
    again = run_image()
    again.wait_until_listening(port)
    wait_for(arrived(faktory, jids), what="all jobs arrive", timeout=30)


def test_the_examples_image_has_the_run_command_and_its_own_programs(
    image: UnpackedImage, volume: Path, faktory: RealFaktory
) -> None:
    build_examples()
    examples = UnpackedImage.unpack(EXAMPLES_TAG)
    try:
        assert not examples.config.get("Entrypoint")
        producer = ("python3", "/app/producer.py", "--jobs", "5", "--rate", "0")
        settings = {"SIDECAR_UPSTREAM": f"tcp://127.0.0.1:{faktory.port}"}
        container = RunningImage(examples, volume, settings, ["faktory-sidecar", "run", "--", *producer])
        assert container.wait() == 0, container.log
        told = {line.split()[1] for line in container.log.splitlines() if line.startswith("acknowledged ")}
        assert told == {job["jid"] for job in faktory.stored()}
        assert len(told) == 5
    finally:
        examples.remove()
