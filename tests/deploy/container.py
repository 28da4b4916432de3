"""Runs our built image as a container runtime would: as PID 1 of its own, unprivileged, on a read-only root.

There is no engine here, so this does with `unshare`, `mount` and `setpriv` what one does: namespaces for processes and
mounts, the image's root read-only, a volume over the journal's place, no capabilities, no new privileges, and exactly
the environment and command that the image's configuration gives. The network is the machine's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real import parts
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "deploy" / "image" / "build"
TAG = "faktory-sidecar:0.1.0"
EXAMPLES = ROOT / "deploy" / "examples"
EXAMPLES_TAG = "faktory-sidecar-examples:0.1.0"
CANNOT = 3
"""The build's exit code where this machine has no means to build."""

VOLUME = "/var/lib/faktory-sidecar"
ISOLATE = ("unshare", "--mount", "--pid", "--fork")
SET_UP = """
set -eu
root=$1 volume=$2 last_words=$3 user=$4 group=$5
shift 5
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null zero urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
: >"$root/dev/termination-log"
mount --bind "$last_words" "$root/dev/termination-log"
mount --bind "$volume" "$root/var/lib/faktory-sidecar"
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs \\
    --inh-caps=-all --bounding-set=-all -- "$@"
"""


class CannotBuild(Exception):
    """This machine has no means to build an image; the text says what is missing."""


def build() -> str:
    """Builds the image and returns what the build says of it.

    Raises:
        CannotBuild: not on this machine.
        AssertionError: the build failed.
    """
    done = subprocess.run([BUILD, TAG], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == CANNOT:
        raise CannotBuild(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, f"{BUILD.name}: {done.stderr[-4000:]}"
    return done.stdout


def build_examples() -> None:
    """Builds the examples' image on the sidecar's."""
    options = ("--isolation", "chroot", "--pull-never", "--format", "docker")
    buildah("build", *options, "--build-arg", f"SIDECAR=localhost/{TAG}", "--tag", EXAMPLES_TAG, str(EXAMPLES))


def buildah(*arguments: str) -> str:
    """One command on the storage that the build uses; its output."""
    place = parts.cache_root() / "image"
    storage = ["--storage-driver", "vfs", "--root", str(place / "storage"), "--runroot", str(place / "run")]
    done = subprocess.run(["buildah", *storage, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class UnpackedImage:
    """The image's root on disk, and its configuration.

    Args:
        container: buildah's name for it.
        config: as in the image's own JSON.
        size: bytes of all layers.
    """

    container: str
    root: Path
    config: Mapping[str, Any]
    size: int

    @classmethod
    def unpack(cls, tag: str = TAG) -> UnpackedImage:
        """Unpacks a built image; `remove` gives the disk back."""
        container = buildah("from", "--pull-never", tag)
        root = Path(buildah("mount", container))
        described = json.loads(buildah("inspect", "--type", "image", tag))
        size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        return cls(container, root, described["Docker"]["config"], size)

    @property
    def environment(self) -> dict[str, str]:
        """The environment that the image sets."""
        return dict(pair.split("=", 1) for pair in self.config["Env"])

    def remove(self) -> None:
        """Removes what was unpacked."""
        buildah("rm", self.container)


class RunningImage:
    """One run of the image.

    Args:
        volume: the directory behind the image's volume.
        settings: environment variables beside the image's own.
        arguments: what comes after the entry point; None for the image's default.
    """

    def __init__(
        self,
        image: UnpackedImage,
        volume: Path,
        settings: Mapping[str, str],
        arguments: Sequence[str] | None = None,
    ) -> None:
        self.last_words = volume.with_suffix(".termination-log")
        self.last_words.write_text("")
        self.last_words.chmod(0o666)
        self._log_path = volume.with_suffix(".log")
        user, _, group = image.config["User"].partition(":")
        entry = image.config.get("Entrypoint") or []
        command = [*entry, *(image.config["Cmd"] if arguments is None else arguments)]
        self.started = time.monotonic()
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*ISOLATE, "sh", "-c", SET_UP, "sh", image.root, volume, self.last_words, user, group, *command],
                env=image.environment | dict(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """Its output, and that of earlier runs on the same volume."""
        return self._log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The program's process as this machine sees it; its own view is PID 1."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(wait_for(lambda: children.read_text().split(), what="the container has a process")[0])

    def wait_until_listening(self, port: int) -> float:
        """Returns when the local endpoint greets; seconds since the start."""

        def greets() -> bool:
            assert self.process.poll() is None, self.log
            try:
                RawClient(port, timeout=1.0).close()
            except OSError:
                return False
            return True

        wait_for(greets, what="the container listens", timeout=30)
        return time.monotonic() - self.started

    def status(self) -> dict[str, str]:
        """The kernel's view of the program, /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once, if it still runs."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.wait()

    def wait(self, timeout: float = 40.0) -> int:
        """Waits for the end; the exit code, negative after a signal."""
        return self.process.wait(timeout)
