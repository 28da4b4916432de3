"""What happens in a process of its own beneath the shim: `python -m tests.journal.scenarios NAME DIRECTORY …`."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
import trio

from sidecar.errors import Refusal
from sidecar.forwarder.audit import Audit, Known
from sidecar.journal import DeadLetter, Journal
from tests.journal.running import MIB, Answer, appended, everything, number_of, payload, running, settled, until


def rule(*lines: str) -> None:
    """Sets the shim's rules; the file is replaced as a whole, so that no call reads a half of it."""
    control = Path(os.environ["SHIM_CONTROL"])
    new = control.with_suffix(".new")
    new.write_text("\n".join(["#", *lines]) + "\n")
    os.replace(new, control)


async def failing_sync(directory: Path) -> None:
    """A failed fsync is never acknowledged, and after it was mended nothing of it is there twice."""
    async with running(directory) as journal:
        await appended(journal, [payload(0)])
        rule(f"sync journal.db fail {errno.EIO}")
        answer = Answer()
        started = time.monotonic()
        journal.append([payload(1)], [1], answer)
        await until(lambda: journal.fault is not None)
        assert "commit failed: disk I/O error" in str(journal.fault), journal.fault
        await answer.came.wait()
        assert 0.9 < time.monotonic() - started < 3
        assert answer.refusal is not None
        assert answer.refusal.message.startswith("in doubt: "), answer.refusal
        late = Answer()
        journal.append([payload(2)], [1], late)
        await trio.sleep(0.2)
        rule()
        await late.came.wait()
        assert late.refusal is None, late.refusal
        assert journal.fault is None
        assert [number_of(row) for row in await everything(journal)] == [0, 2]
        assert journal.waiting == 2
    async with running(directory) as journal:
        assert [number_of(row) for row in await everything(journal)] == [0, 2]


async def full_disk(directory: Path) -> None:
    """ENOSPC from the disk: jobs are refused, deletions go on, service comes back."""
    async with running(directory) as journal:
        await appended(journal, [payload(n, 1000) for n in range(1000)])
        rule(f"write journal.db fail {errno.ENOSPC}")
        with pytest.raises(Refusal, match="disk full"):
            await appended(journal, [payload(1)])
        assert not (directory / "reserve").exists()
        rule()
        await until(lambda: journal.fault is None)
        assert (directory / "reserve").stat().st_size == 16 * 1024 * 1024
        await settled(journal, range(1, 1001))
        await appended(journal, [payload(2)])
        assert journal.waiting == 1


async def refused(journal: Journal) -> Refusal:
    """Appends until there is no room."""
    while True:
        answer = Answer()
        journal.append([payload(n, 1000) for n in range(100)], [1] * 100, answer)
        await answer.came.wait()
        if answer.refusal is not None:
            return answer.refusal


def held(directory: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in directory.iterdir())


async def quota(directory: Path) -> None:
    """EDQUOT, which statvfs doesn't show: refused as not sent; all that is delivered is deleted; service comes back."""
    async with running(directory) as journal:
        await appended(journal, [payload(n, 1000) for n in range(3000)])
        rule(f"write {directory} quota {held(directory) + 4096}")
        refusal = await refused(journal)
        assert refusal.message.startswith("not sent: disk full: "), refusal
        assert "Disk quota exceeded" in refusal.message, refusal
        await settled(journal, range(1, journal.last_id + 1))
        assert journal.waiting == 0
        with pytest.raises(Refusal, match="not sent: "):
            await appended(journal, [payload(1)])
        rule()
        await until(lambda: journal.fault is None)
        assert (directory / "reserve").stat().st_size == 16 * MIB
        await appended(journal, [payload(2)])
        assert journal.waiting == 1


async def file_size(directory: Path) -> None:
    """EFBIG, a real one: the bound on a file's size is the journal's, so all can be deleted and taken again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40 * MIB, 40 * MIB))
    async with running(directory) as journal:
        refusal = await refused(journal)
        assert "not sent: journal full: " in refusal.message, refusal
        await settled(journal, range(1, journal.last_id + 1))
        assert journal.waiting == 0
        await until(lambda: journal.fault is None)
        await appended(journal, [payload(2)])


async def file_size_lowered(directory: Path) -> None:
    """EFBIG under the feet: what can be deleted is, the next start works and knows it, and the rest goes later."""
    unbound = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    async with running(directory) as journal:
        for first in range(0, 20_000, 1_000):
            await appended(journal, [payload(first + n, 1000) for n in range(1_000)])
        bound = (directory / "journal.db-wal").stat().st_size + 2 * MIB
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, unbound[1]))
        deleted: list[int] = []
        for first in range(1, 20_001, 1_000):
            journal.settle(range(first, first + 1_000), partial(deleted.append, first))
        await until(lambda: bool(deleted) and "RLIMIT_FSIZE" in str(journal.fault))
        assert len(deleted) < 20
    async with running(directory) as journal:
        assert journal.waiting == 20_000 - 1_000 * len(deleted)
        resource.setrlimit(resource.RLIMIT_FSIZE, unbound)
        await settled(journal, range(1, 20_001))
        assert journal.waiting == 0
    async with running(directory) as journal:
        await appended(journal, [payload(2)])
        assert journal.waiting == 1


async def no_room_at_the_start(directory: Path) -> None:
    """A disk that is full to the last byte: the start takes the reserve's room, and what is delivered is deleted."""
    async with running(directory) as journal:
        await appended(journal, [payload(n) for n in range(100)])
    rule(f"write {directory} quota {held(directory)}")
    async with running(directory) as journal:
        assert not journal.recovery.unclean
        await until(lambda: "Disk quota exceeded" in str(journal.fault))
        await settled(journal, range(1, 101))
        assert journal.waiting == 0


async def read_only(directory: Path) -> None:
    """A volume that turns read-only: refused with a clear text, mended by itself."""
    async with running(directory) as journal:
        await appended(journal, [payload(0)])
        rule(*(f"{call} journal.db fail {errno.EROFS}" for call in ("write", "sync", "truncate")))
        with pytest.raises(Refusal, match="commit failed"):
            await appended(journal, [payload(1)])
        assert (await journal.fetch([1]))[0]
        rule()
        await until(lambda: journal.fault is None)
        await appended(journal, [payload(2)])


async def stalled(directory: Path) -> None:
    """A disk that hangs doesn't hold up the event loop; what was appended is stored when it goes on."""
    async with running(directory) as journal:
        rule("sync -wal delay 0")
        answer = Answer()
        journal.append([payload(0)], [1], answer)
        longest = 0.0
        for _ in range(450):
            before = time.monotonic()
            await trio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
        assert longest < 0.3, longest
        assert not answer.came.is_set()
        assert "disk stalled: the journal's disk has not answered for" in str(journal.fault), journal.fault
        rule()
        await answer.came.wait()
        assert answer.refusal is None
        assert journal.fault is None


async def stop_on_broken_disk(directory: Path) -> None:
    """A stop beside a disk that refuses ends, and what was acknowledged stays."""
    async with running(directory) as journal:
        await appended(journal, [payload(0), payload(1)])
        rule(f"sync journal.db fail {errno.EIO}", f"write journal.db fail {errno.EIO}")
        journal.settle([1])
        journal.append([payload(2)], [1], Answer())
        await until(lambda: journal.fault is not None)
    rule()
    async with running(directory) as journal:
        assert journal.recovery.unclean
        assert {0, 1} <= {number_of(row) for row in await everything(journal)}


async def audited(directory: Path) -> None:
    """Beside a disk that fails and then hangs the audit never takes a delivered job for an unknown one."""
    recovered: list[int] = []
    async with running(directory) as journal:
        await appended(journal, [payload(number) for number in range(200)])
        audit = Audit(
            journal,
            known=lambda: Known({*journal.leaving(), *range(151, 201)}),
            delivered=lambda: 0,
            recover=recovered.extend,
        )

        async def look() -> None:
            while True:
                await audit.look()
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            known_later = set(range(1, 151))
            audit._known = lambda: Known({*known_later, *journal.leaving(), *range(151, 201)})
            for first, trouble in ((1, f"sync journal.db fail {errno.EIO}"), (76, "sync -wal delay 0")):
                rule(trouble)
                ids = range(first, first + 75)
                journal.settle(ids)  # delivered; from now on only the unconfirmed deletion knows them
                known_later.difference_update(ids)
                await trio.sleep(1.5)
                rule()
                await until(lambda: not journal.leaving() and journal.fault is None)
            await trio.sleep(0.3)
            assert recovered == [], recovered
            assert journal.waiting == 50
            audit._known = lambda: Known({*journal.leaving(), *range(161, 201)})
            await until(lambda: recovered == list(range(151, 161)))  # and what is unknown is found
            nursery.cancel_scope.cancel()


class Acks:
    """What was acknowledged, a line each, in a file beside the directory: `+NUMBER` stored, `-NUMBER` let go."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory.parent / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def stored(self, numbers: Iterable[int]) -> None:
        """These jobs were acknowledged."""
        os.write(self._descriptor, b"".join(b"+%d\n" % number for number in numbers))

    def let_go(self, numbers: Iterable[int]) -> None:
        """These are about to be settled: from here on they may be gone."""
        os.write(self._descriptor, b"".join(b"-%d\n" % number for number in numbers))


async def producer(directory: Path) -> None:
    """Appends and settles until it is killed."""
    acks = Acks(directory)
    started = time.time_ns() // 1000 % 10**12 * 1000
    async with running(directory) as journal:
        for step in itertools.count():
            numbers = [started + step * 8 + n for n in range(1 + step % 7)]
            first = await appended(journal, [payload(n, 53 + 97 * (step % 13)) for n in numbers])
            acks.stored(numbers)
            if step % 3 == 0:
                acks.let_go(numbers[:1])
                journal.settle([first])


async def life(directory: Path) -> None:
    """Everything that a journal does, once."""
    acks = Acks(directory)
    async with running(directory) as journal:
        for group in range(0, 20, 5):
            await appended(journal, [payload(n) for n in range(group, group + 5)])
            acks.stored(range(group, group + 5))
        acks.let_go([1, 2])
        await settled(journal, [2, 3])
        journal.note_attempts([4, 5], 2)
        acks.let_go([6])
        letter = DeadLetter(7, "jid", "ERR bad", 1, payload(6), 1.0)
        buried = trio.Event()
        journal.bury([letter], buried.set)
        await buried.wait()
        await appended(journal, [payload(n, 50_000) for n in range(100, 250)])  # several transactions, a checkpoint
        acks.stored(range(100, 250))
        acks.let_go(range(100, 250))
        await settled(journal, range(21, 171))
        assert len(await everything(journal)) == 17
        acks.let_go(range(20))
        await settled(journal, range(1, 21))
        database = directory / "journal.db"
        await until(lambda: database.stat().st_size < 2 * MIB)  # space is given back


async def opening(directory: Path) -> None:
    """Only the start, and a stop."""
    async with running(directory) as journal:
        await appended(journal, [payload(10**9)])


def main() -> None:
    """Runs the scenario that the command line names."""
    name, directory = sys.argv[1:3]
    trio.run(globals()[name], Path(directory))
    print("ok")


if __name__ == "__main__":
    main()
