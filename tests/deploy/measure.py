"""The figures of docs/kubernetes.md: size of the image, time to its first greeting, memory.

    python -m tests.deploy.measure           (root, Linux; builds the image first)

Cold means that nothing of the image is in the page cache: all caches of the machine are dropped before each such start.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import uuid
from pathlib import Path

from tests.deploy.container import CannotBuild, RunningImage, UnpackedImage, build
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.ports import free_port
from tests.real.raw_client import RawClient

STARTS = 5
BATCHES = 100
BATCH = 1000
ARGUMENT = "x" * 400
"""Makes a job about 500 bytes long."""


def start(image: UnpackedImage, volume: Path, upstream: str) -> tuple[RunningImage, int, float]:
    """A running container, the port of its local endpoint, and seconds until that greeted."""
    port = free_port()
    settings = {
        "SIDECAR_UPSTREAM": upstream,
        "SIDECAR_LISTEN": f"127.0.0.1:{port}",
        "SIDECAR_HTTP_LISTEN": "off",
        "SIDECAR_OPS_LISTEN": f"127.0.0.1:{free_port()}",
    }
    container = RunningImage(image, volume, settings)
    return container, port, container.wait_until_listening(port)


def stop(container: RunningImage) -> None:
    """Ends a container as a runtime does."""
    container.signal(signal.SIGTERM)
    assert container.wait() == 0, container.log


def starts(image: UnpackedImage, volume: Path, upstream: str, *, cold: bool) -> float:
    """Median seconds until the first greeting."""
    times = []
    for _ in range(STARTS):
        if cold:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        container, _, seconds = start(image, volume, upstream)
        stop(container)
        times.append(seconds)
    return statistics.median(times)


def push(port: int) -> None:
    """Pushes many jobs in large batches."""
    with RawClient(port, timeout=60.0) as client:
        for _ in range(BATCHES):
            jobs = [{"jid": uuid.uuid4().hex, "jobtype": "Load", "args": [ARGUMENT]} for _ in range(BATCH)]
            assert client.push_bulk(jobs) == {}


def resident(container: RunningImage, field: str = "VmRSS") -> str:
    """MiB of memory now, or at most so far (`VmHWM`)."""
    return f"{int(container.status()[field].split()[0]) / 1024:.0f} MiB"


def cpu_seconds(container: RunningImage) -> float:
    """Processor time used so far."""
    fields = Path(f"/proc/{container.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(image: UnpackedImage, volume: Path, faktory: RealFaktory) -> None:
    """Prints memory and processor time, idle, under load, and with a backlog."""
    container, port, _ = start(image, volume, faktory.url)
    print(f"memory, idle                        {resident(container)}")
    before = cpu_seconds(container)
    push(port)
    wait_for(lambda: len_of(faktory) == BATCHES * BATCH, what="all jobs arrive", timeout=120)
    print(f"memory, at most, {BATCHES * BATCH:,} jobs sent  {resident(container, 'VmHWM')}")
    print(f"processor time of {BATCHES * BATCH:,} jobs      {cpu_seconds(container) - before:.1f} s")
    stop(container)
    faktory.stop()
    container, port, _ = start(image, volume, faktory.url)
    push(port)
    print(f"memory, {BATCHES * BATCH:,} jobs waiting        {resident(container)}")
    on_disk = sum(path.stat().st_size for path in volume.rglob("*") if path.is_file())
    print(f"journal of {BATCHES * BATCH:,} jobs             {on_disk / 2**20:.0f} MiB (16 MiB of it the reserve)")
    container.kill()


def len_of(faktory: RealFaktory) -> int:
    """Jobs in Faktory's queue."""
    return int(str(faktory.redis("LLEN", "q:default")))


def main() -> int:
    """Builds, measures, prints."""
    try:
        print(build().strip())
    except CannotBuild as reason:
        print(reason, file=sys.stderr)
        return 1
    image = UnpackedImage.unpack()
    faktory = RealFaktory()
    faktory.start()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            volume = Path(scratch) / "volume"
            volume.mkdir()
            Path(scratch).chmod(0o755)
            os.chown(volume, 65532, 65532)
            added = sum(p.lstat().st_size for p in (image.root / "opt").rglob("*") if not p.is_dir())
            print(json.dumps({"image_bytes": image.size, "of_which_ours": added}))
            print(f"first greeting, warm                {starts(image, volume, faktory.url, cold=False):.2f} s")
            print(f"first greeting, cold                {starts(image, volume, faktory.url, cold=True):.2f} s")
            memory(image, volume, faktory)
    finally:
        faktory.dispose()
        image.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
