"""Large payloads: what goes in comes out, and memory doesn't hold it many times over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.journal.blobs import LARGE
from sidecar.journal.pending import GROUP_BYTES
from sidecar.journal.seal import DeadLetter
from sidecar.journal.store import Addition, Change, Store
from tests.journal.running import MIB, appended, everything, payload, running, settled

SIZES = (LARGE - 1, LARGE, GROUP_BYTES - 1000, GROUP_BYTES, GROUP_BYTES + 1, 3 * GROUP_BYTES)


async def test_jobs_of_all_sizes_are_read_back_as_they_were(tmp_path: Path) -> None:
    stored = [payload(number, size) for number, size in enumerate(SIZES)]
    async with running(tmp_path / "journal") as journal:
        await appended(journal, stored)  # one command
        for one in stored:
            await appended(journal, [one])
        assert [row.payload for row in await everything(journal)] == stored * 2
        found, left = await journal.fetch([6, 12])
        assert [row.payload for row in found] == [stored[5]]
        assert list(left) == [12]
        await settled(journal, range(1, 12))
        assert journal.waiting == 1
    async with running(tmp_path / "journal") as journal:
        assert [row.payload for row in await everything(journal)] == [stored[5]]


def test_a_large_job_that_is_no_bytes_any_more_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    large = payload(1, 2 * GROUP_BYTES)
    store.commit(Change(ahead=[Addition(1, [large], [1], 1.0)]))
    store.db.execute("UPDATE jobs SET payload = CAST(payload AS TEXT)")
    assert store.page(0, 10, MIB) == ([], [1], 1)
    store.db.execute("UPDATE jobs SET payload = CAST(payload AS BLOB)")
    assert [row.payload for row in store.page(0, 10, MIB)[0]] == [large]


def test_a_large_dead_letter_comes_back_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    large = payload(1, 2 * GROUP_BYTES)
    store.commit(Change(additions=[Addition(1, [large], [1], 1.0)]))
    store.commit(Change(letters=[DeadLetter(1, "jid", "no", 1, large, 1.0)]))
    assert [letter.payload for letter in store.letters(1, 1)] == [large]
    assert store.put_back([1], 2, 2.0) == 1
    assert [row.payload for row in store.page(0, 10, MIB)[0]] == [large]
    assert (store.counts().jobs, store.counts().dead, store.counts().last_id) == (1, 0, 2)


PROGRAM = """
import sys
from pathlib import Path
from sidecar.journal.store import Addition, Change, Store
store = Store(Path(sys.argv[1]))
job = b"x" * (30 << 20)
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
before = peak()
store.commit(Change(ahead=[Addition(1, [job], [1], 1.0)]))
written = peak()
del job
store.page(0, 1000, 4 << 20)
print(written - before, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_job_is_stored_and_read_without_copies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    written, read = map(float, ran.stdout.split())
    assert written < 15  # the page cache is 8 MiB
    assert read < 20
