"""Files that are replaced, deleted or mounted over under the running journal, and copies put in their place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from sidecar.errors import Refusal
from sidecar.journal.slots import said_of_left
from sidecar.journal.space import Space
from tests.conftest import SidecarFactory
from tests.journal.conftest import Mount
from tests.journal.running import appended, everything, number_of, payload, running, settled, until
from tests.real.polling import wait_for

NOWHERE = "tcp://127.0.0.1:1"


def moved_away(directory: Path) -> None:
    directory.rename(directory.with_name("away"))
    directory.mkdir()


def removed(directory: Path) -> None:
    gone = directory.with_name("gone")
    directory.rename(gone)  # at once: with files that vanish one by one it would be the next one, for a moment
    shutil.rmtree(gone)


def emptied(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def older_copy(directory: Path) -> None:
    """The database alone replaced by a copy of itself."""
    copy = directory / "copy"
    shutil.copyfile(directory / "journal.db", copy)
    copy.rename(directory / "journal.db")


def without_wal(directory: Path) -> None:
    (directory / "journal.db-wal").unlink()


def relinked(directory: Path) -> None:
    """A deployment's `current` link."""
    real = directory.with_name("release-1")
    directory.rename(real)
    directory.with_name("release-2").mkdir()
    directory.symlink_to("release-2")


HARMS = [moved_away, removed, emptied, older_copy, without_wal, relinked]


@pytest.mark.parametrize("harm", HARMS)
async def test_files_that_the_path_no_longer_names_promise_nothing(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    directory = tmp_path / "state" / "journal"
    async with running(directory) as journal:
        await appended(journal, [payload(n) for n in range(5)])
        harm(directory)
        await until(lambda: journal.fault is not None)
        assert "since the start" in str(journal.fault)
        with pytest.raises(Refusal, match="not sent: "):
            await appended(journal, [payload(9)])
        assert len(await everything(journal)) == 5  # what was acknowledged is read and settled as ever
        await settled(journal, [1, 2])
        assert journal.waiting == 3
    saved = journal.saved_in or directory
    async with running(saved) as again:
        assert [number_of(row) for row in await everything(again)] == [2, 3, 4]
    assert (journal.saved_in is None) == (harm is emptied)


@pytest.mark.parametrize("step", ["measure", "disk_lacks", "_make"])
@pytest.mark.parametrize(
    "harm", [removed, shutil.rmtree, moved_away], ids=["removed", "removed piecemeal", "moved away"]
)
async def test_a_place_that_is_lost_in_the_middle_of_a_step_goes_on_deleting(
    tmp_path: Path, harm: Callable[[Path], None], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread does just then was decided while all was well."""
    directory = tmp_path / "state" / "journal"
    real = getattr(Space, step)
    armed = False

    def harmed(space: Space, *arguments: object) -> object:
        nonlocal armed
        if armed:
            armed = False
            harm(directory)
        return real(space, *arguments)

    monkeypatch.setattr(Space, step, harmed)
    async with running(directory) as journal:
        await appended(journal, [payload(n) for n in range(3)])
        armed = True
        if step == "_make":
            (directory / "reserve").unlink(missing_ok=True)
        await until(lambda: "since the start" in str(journal.fault))
        with trio.fail_after(20):
            await settled(journal, [1, 2, 3])
        assert journal.waiting == 0
        assert not journal.broken
    assert not (directory / "journal.db").exists()


async def test_what_is_back_is_used_again(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    async with running(directory) as journal:
        await appended(journal, [payload(0)])
        moved_away(directory)
        await until(lambda: journal.fault is not None)
        directory.rmdir()
        directory.with_name("away").rename(directory)
        await until(lambda: journal.fault is None)
        await appended(journal, [payload(1)])
    async with running(directory) as journal:
        assert journal.waiting == 2


async def test_a_volume_mounted_over_it(tmp_path: Path, mount: Mount) -> None:
    place = mount("tmpfs", 64)
    below = place.parent / "below"
    async with running(below) as journal:
        await appended(journal, [payload(0)])
        bind = ["mount", "--bind", str(place), str(below)]
        await trio.to_thread.run_sync(lambda: subprocess.run(bind, check=True))
        try:
            await until(lambda: journal.fault is not None)
        finally:
            await trio.to_thread.run_sync(lambda: subprocess.run(["umount", str(below)], check=True))
        await until(lambda: journal.fault is None)
        await appended(journal, [payload(1)])
        assert journal.waiting == 2


async def test_another_owner_of_the_path_keeps_its_files(tmp_path: Path) -> None:
    """At its end SQLite deletes the WAL by name: by then the name is somebody else's."""
    directory = tmp_path / "journal"
    async with running(directory) as journal:
        await appended(journal, [payload(0)])
        moved_away(directory)
        await until(lambda: journal.fault is not None)
        theirs = {directory / name: os.urandom(100) for name in ("journal.db", "journal.db-wal", "journal.db-shm")}
        for path, content in theirs.items():
            path.write_bytes(content)
    assert {path: path.read_bytes() for path in theirs} == theirs


@pytest.mark.parametrize("copied", [False, True])
async def test_a_copy_put_in_its_place_between_two_stops_is_known(tmp_path: Path, *, copied: bool) -> None:
    directory = tmp_path / "journal"
    async with running(directory) as journal:
        await appended(journal, [payload(n) for n in range(3)])
    backup = tmp_path / "backup"
    shutil.copytree(directory, backup)
    async with running(directory) as journal:
        assert not journal.recovery.replaced
        await settled(journal, [1, 2])
    if copied:
        shutil.rmtree(directory)
        shutil.copytree(backup, directory)
    async with running(directory) as journal:
        assert journal.recovery.replaced == copied
        assert not journal.recovery.unclean
        assert journal.waiting == (3 if copied else 1)


def test_a_running_sidecar_refuses_and_says_where_its_jobs_are(sidecar_process: SidecarFactory, tmp_path: Path) -> None:
    directory = tmp_path / "state" / "journal"
    settings = {"SIDECAR_JOURNAL_DIR": str(directory), "SIDECAR_HTTP_LISTEN": "off"}
    job = {"jobtype": "T", "args": []}
    sidecar = sidecar_process(NOWHERE, settings)
    with sidecar.client() as client:
        assert client.push({"jid": "first-job", **job}) == "OK"
        moved_away(directory)
        wait_for(lambda: sidecar.events("journal_lost"), what="it is noticed")
        with pytest.raises(Exception, match="not sent: "):
            client.push({"jid": "second-job", **job})
    sidecar.terminate()
    sidecar.wait()
    saved = sidecar.events("journal_saved")[0]["directory"]
    words = sidecar.events("stopped")[0]["message"]
    assert f"journal send --journal-dir {saved}" in words
    again = sidecar_process(NOWHERE, settings | {"SIDECAR_JOURNAL_DIR": saved})
    assert again.events("copy_in_doubt") == []
    again.terminate()
    again.wait()
    assert "1 jobs stay" in again.events("stopped")[0]["message"]


def test_a_copy_that_was_saved_is_named_until_it_is_empty(tmp_path: Path, sidecar_process: SidecarFactory) -> None:
    directory = tmp_path / "journal"

    async def lose() -> Path | None:
        async with running(directory, upstream=NOWHERE) as journal:
            await appended(journal, [payload(n) for n in range(3)])
            moved_away(directory)
            await until(lambda: journal.fault is not None)
        return journal.saved_in

    saved = trio.run(lose)
    assert saved is not None
    (text,) = said_of_left(directory, NOWHERE).values()
    assert text.startswith("3 jobs and 0 dead letters of a journal whose files were lost; to send them: ")
    process = sidecar_process(NOWHERE, {"SIDECAR_JOURNAL_DIR": str(directory)})
    said = process.wait_for_event("saved_journal")
    assert str(saved) in said["message"]
    assert text in said["message"]

    async def deliver() -> None:
        async with running(saved, upstream=NOWHERE) as journal:
            await settled(journal, [1, 2, 3])

    trio.run(deliver)
    assert said_of_left(directory, NOWHERE) == {}


def without_beginning(directory: Path) -> None:
    os.truncate(directory / "journal.db-wal", 0)


def emptied_database(directory: Path) -> None:
    os.truncate(directory / "journal.db", 0)


@pytest.mark.parametrize("cut", [without_beginning, emptied_database])
async def test_a_file_that_was_cut_promises_nothing(tmp_path: Path, cut: Callable[[Path], None]) -> None:
    directory = tmp_path / "journal"
    async with running(directory) as journal:
        await appended(journal, [payload(n) for n in range(5)])
        cut(directory)
        with suppress(Refusal):  # the first may hide it: what is written then grows the file again
            await appended(journal, [payload(8)])
        await until(lambda: journal.fault is not None)
        assert "was cut under the running process" in str(journal.fault)
        with pytest.raises(Refusal, match="not sent: "):
            await appended(journal, [payload(9)])


AS_NOBODY = """
import os, sys
from pathlib import Path
from sidecar.errors import StartError
from sidecar.journal.store import Store
directory = Path(sys.argv[1])
directory.mkdir()
Store(directory).close()
for path in (directory.parent, directory, *directory.iterdir()):
    os.chown(path, 65534, 65534)
(directory / "journal.db").chmod(0o444)
os.setuid(65534)
try:
    Store(directory)
except StartError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_file_that_cannot_be_written_is_named_at_the_start() -> None:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", AS_NOBODY, f"{place}/journal"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"{place}/journal/journal.db: this user can't write to it")
