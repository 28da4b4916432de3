"""What goes wrong around the sidecar: the link, Faktory, its store, the log, the disk. Each begins, and is mended."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.ledger.ear import Ear
from tests.real.faktory_server import RealFaktory
from tests.real.sidecar_command import SidecarProcess
from tests.real.toxiproxy_server import Link

REDIS_LIMIT = 5.0
"""Seconds after which Faktory gives a command up that waits for Redis."""


@dataclass
class Scene:
    """What troubles act on.

    Args:
        process: the sidecar's, as of now.
        journal: its directory.
        ear: None where nobody listens.
    """

    server: RealFaktory
    link: Link
    process: Callable[[], SidecarProcess]
    journal: Path
    dice: random.Random
    ear: Ear | None = None
    began: float = field(default=0.0)

    def start_server(self) -> None:
        """Start Faktory, heard from its first job on: nobody reaches it before."""
        self.link.disable()
        self.server.start()
        if self.ear is not None:
            self.ear.attach()
        self.link.enable()


@dataclass(frozen=True)
class Trouble:
    """One kind.

    Args:
        name: for tables.
        begin: what happens.
        mend: undoes it; called once after `begin`, perhaps in the life of another process.
        lost_links: how many times a full pipeline may be in doubt through it.
        explains: events that may be logged as ERROR because of it.
        ours: it is a matter of the process, and over when that ends.
        lasts: seconds that a life goes on with it, at most, beside those that it has anyway.
    """

    name: str
    begin: Callable[[Scene], None]
    mend: Callable[[Scene], None] = lambda scene: None
    lost_links: int = 0
    explains: tuple[str, ...] = ()
    ours: bool = False
    lasts: float = 0.0


def _cut(scene: Scene) -> None:
    scene.link.cut()


def _go_away(scene: Scene) -> None:
    scene.link.disable()


def _come_back(scene: Scene) -> None:
    scene.link.enable()


def _restart(scene: Scene) -> None:
    scene.server.stop()
    scene.start_server()


def _stall(scene: Scene) -> None:
    scene.began = time.monotonic()
    scene.server.stall_redis()


def _resume(scene: Scene) -> None:
    scene.server.resume_redis()


def _starve(scene: Scene) -> None:
    scene.server.redis("CONFIG", "SET", "maxmemory", "1")


def _feed(scene: Scene) -> None:
    scene.server.redis("CONFIG", "SET", "maxmemory", "0")


def _kill_redis(scene: Scene) -> None:
    """Redis dies, which ends Faktory with a panic; what it had was saved, because its durability isn't ours to test."""
    scene.link.disable()
    scene.server.redis("SAVE")
    scene.link.enable()
    os.kill(scene.server.redis_pid, signal.SIGKILL)


def _start_again(scene: Scene) -> None:
    scene.server.stop()
    scene.start_server()


def _stall_log(scene: Scene) -> None:
    pipe = scene.process().log_pipe
    assert pipe is not None
    pipe.stall()


def _read_log(scene: Scene) -> None:
    pipe = scene.process().log_pipe
    assert pipe is not None
    pipe.go_on()


def _limit_files(scene: Scene) -> None:
    """No file may grow beyond what the journal's largest has now, and a little: a quota that `statvfs` doesn't show."""
    largest = max((file.stat().st_size for file in scene.journal.glob("*.db*")), default=0)
    _limit(scene, largest + scene.dice.randrange(1 << 18))


def _unlimited_files(scene: Scene) -> None:
    _limit(scene, resource.RLIM_INFINITY)


def _limit(scene: Scene, size: int) -> None:
    pid = scene.process().process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


DISK = ("journal_full", "journal_broken")

TROUBLES = {
    trouble.name: trouble
    for trouble in (
        Trouble("cut", _cut, lost_links=1),
        Trouble("away", _go_away, _come_back, lost_links=1),
        Trouble("restart", _restart, lost_links=1),
        Trouble("stall", _stall, _resume, lost_links=1, lasts=1.0),
        Trouble("memory", _starve, _feed, lasts=1.0),
        Trouble("redis-dies", _kill_redis, _start_again, lost_links=1),
        Trouble("log", _stall_log, _read_log, ours=True, lasts=2.0),
        Trouble("quota", _limit_files, _unlimited_files, explains=DISK, ours=True, lasts=3.0),
    )
}
