"""What `check` makes of what it found."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from sidecar.cli.findings import Findings, Port, advice, effective, link_capacity, per_second
from sidecar.cli.report import as_object
from sidecar.cli.upstream_probe import ProbeError, Upstream
from sidecar.config import SETTINGS, Loaded, load
from sidecar.journal import Journal, volume
from sidecar.journal.probe import Contents, look
from sidecar.journal.volume import Volume

GOOD_VOLUME = Volume("ext4", 50 << 30, 0.0002, None)


def far(round_trip: float = 0.0487, *, pushb: bool = True, public: bool = False) -> Upstream:
    return Upstream("1.10.0", wants_password=True, pushb=pushb, round_trip=round_trip, beyond_private=public)


def settings(**environ: str) -> Loaded:
    return load({"HOME": "/home/me", "SIDECAR_UPSTREAM": "tcp://:hush@faktory.example.com", **environ}, {})


def findings(upstream: Upstream | ProbeError, disk: Volume | str | None = GOOD_VOLUME, **environ: str) -> Findings:
    contents = Contents(waiting=0, dead=0)
    return Findings(
        settings(**environ), upstream, disk, contents, (Port("SIDECAR_LISTEN", "Faktory", "localhost:7419", None),)
    )


def test_the_defaults_fit_a_wan() -> None:
    found = findings(far())
    assert list(advice(found)) == []
    assert found.exit_code == 0
    assert per_second(link_capacity(found.loaded.settings, far())) == "131,000"
    assert per_second(1 / far().round_trip) == "20"


ADVICE: list[tuple[Findings, str]] = [
    (findings(far(0.5)), "BATCH_MAX_SIZE=250"),
    (findings(far(), BATCH_AUTO_ENABLED="false"), "BATCH_AUTO_ENABLED=true"),
    (findings(far(pushb=False)), "1.6.0"),
    (findings(far(public=True)), "tcp+tls://"),
    (findings(far(0.0003), SIDECAR_ACK="disk"), "upstream is near (0.3 ms)"),
    (findings(far(), Volume("ext4", 50 << 30, 0.04, None)), "at most 25 jobs/s"),
    (findings(far(), Volume("ext4", 1 << 20, 0.0002, None)), "less space is free"),
]


@pytest.mark.parametrize(("found", "words"), ADVICE)
def test_advice_only_where_something_is_gained(found: Findings, words: str) -> None:
    [sentence] = advice(found)
    assert words in sentence


def test_a_capacity_that_advice_gives_is_enough() -> None:
    bigger = settings(BATCH_MAX_SIZE="250").settings
    assert link_capacity(bigger, far(0.5)) >= 30_000


def test_exit_codes() -> None:
    down = ProbeError("connect", "connection refused", "nothing listens there")
    assert findings(down).exit_code == 1
    assert findings(far(), "Permission denied").exit_code == 2
    assert findings(down, "Permission denied").exit_code == 2


def test_the_object_hides_secrets_and_has_every_setting() -> None:
    shown = as_object(findings(far(), SIDECAR_HTTP_TOKEN="hush"))
    assert "hush" not in repr(shown)
    assert set(shown["settings"]) == set(SETTINGS)
    assert shown["settings"]["SIDECAR_HTTP_TOKEN"] == {"value": "***", "source": "environment SIDECAR_HTTP_TOKEN"}
    assert shown["settings"]["BATCH_MAX_DELAY_MS"] == {"value": "50", "source": "default"}
    assert shown["settings"]["SIDECAR_OPS_LISTEN"] == {"value": "off", "source": "default"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIDECAR_UPSTREAM", "tcp://:***@faktory.example.com:7419"),
        ("SIDECAR_UPSTREAM_PASSWORD", "***"),
        ("SIDECAR_UPSTREAM_TLS_CA", None),
        ("SIDECAR_JOURNAL_MAX_BYTES", "1 GiB"),
        ("SIDECAR_DRAIN_TIMEOUT_S", "25"),
        ("BATCH_AUTO_ENABLED", "true"),
        ("SIDECAR_LISTEN", "localhost:7419"),
    ],
)
def test_effective_values(name: str, text: str | None) -> None:
    assert effective(settings().settings, name) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.5, "0.5"), (20.53, "20"), (999.9, "999"), (131_417, "131,000"), (28_499, "28,400")]
)
def test_rates_never_promise_more(rate: float, text: str) -> None:
    assert per_second(rate) == text


MOUNTINFO = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
24 27 0:6 / /dev rw - devtmpfs devtmpfs rw
30 27 0:30 / /var/lib/my\040data rw shared:1 master:2 - nfs4 server:/x rw
31 27 0:31 / /run rw - tmpfs tmpfs rw
32 27 0:32 / /run rw - ramfs ramfs rw
""".strip().splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/dev", "devtmpfs"),
        ("/var/lib/my data/j", "nfs4"),
        ("/running", "ext4"),
        ("/run/x", "ramfs"),
    ],
)
def test_file_systems_on_linux(path: str, kind: str) -> None:
    assert volume.kind_of(Path(path), volume.linux_mounts(MOUNTINFO)) == kind


def test_file_systems_on_macos() -> None:
    mounts = volume.bsd_mounts(["/dev/disk1s1 on / (apfs, local)", "map auto on /net (autofs)", "odd line"])
    assert mounts == [("/", "apfs"), ("/net", "autofs")]


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "nfs4", "fuse.sshfs", "9p"])
def test_volumes_on_which_ok_would_promise_too_much(kind: str) -> None:
    assert kind in (volume.what_is_lost(kind) or "")


def test_a_volume_is_examined_without_a_trace(tmp_path: Path) -> None:
    seen = volume.examine(tmp_path / "not" / "yet")
    assert seen.free > 0
    assert 0 < seen.fsync < 10
    assert list(tmp_path.iterdir()) == []
    assert volume.what_is_lost("ext4") is None


async def test_a_journal_is_looked_into_without_a_trace(tmp_path: Path) -> None:
    assert look(tmp_path / "absent") == Contents(waiting=0, dead=0)
    directory = tmp_path / "journal"
    journal = Journal.open(directory, upstream="tcp://staging:7419", max_bytes=64 << 20)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        stored = trio.Event()
        journal.append([b"{}", b"{}"], [1, 1], lambda refusal: stored.set())
        await stored.wait()
        running = look(directory)
        nursery.cancel_scope.cancel()
    assert (running.waiting, running.dead, running.upstream) == (2, 0, "tcp://staging:7419")
    assert running.owner is not None

    before = sorted(directory.iterdir())
    stopped = look(directory)
    assert (stopped.waiting, stopped.owner) == (2, None)
    assert sorted(directory.iterdir()) == before
    assert stopped.foreign("tcp://staging:7419") is None
    assert "holds 2 jobs for tcp://staging:7419, upstream is tcp://prod:7419" in (
        stopped.foreign("tcp://prod:7419") or ""
    )

    (directory / "journal.db-wal").write_bytes(b"x")
    assert look(directory).waiting is None
    (directory / "journal.db-wal").unlink()
    (directory / "journal.db").write_bytes(b"no database" * 1000)
    assert look(directory).waiting is None
