"""Jobs on their way to the disk: handed over together, answered once, whatever comes first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.errors import Refusal
from sidecar.intake import turn as turn_module
from sidecar.intake.answers import Verdicts
from sidecar.intake.deadlines import ANSWER_WITHIN
from sidecar.intake.turn import SLOW_COMMIT, LentTurn, Turn
from sidecar.jobs import Entry, Epoch
from sidecar.journal import Journal
from sidecar.protocol.jobs import Job

FULL = Refusal("not sent: journal full")


class Door:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stored(self, turn: Turn, refusal: Refusal | None) -> None:
        self.told.append(f"stored {refusal.message}" if refusal is not None else "stored")

    def heard_of(self, turn: Turn) -> None:
        self.told.append("heard of")

    def watch(self, turn: Turn, *, since: float | None) -> None:
        self.told.append(f"watches since {since}")

    def drop(self, entry: Entry) -> bool:
        raise AssertionError("a turn's jobs are not dropped")

    def why_not_sent(self) -> Refusal:
        raise AssertionError("nothing of a turn is sent")

    def refuse(self, reason: str, jobs: int = 1) -> None:
        self.told.append(f"refuses {jobs}: {reason}")


class Disk:
    """A journal that commits when it is told to."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.origins: list[int] = []
        self.committed: Callable[[Refusal | None], None] = lambda refusal: None
        self.at_once: Callable[[], None] = lambda: None

    def append(self, payloads: Sequence[bytes], origins: Sequence[int], done: Any) -> int:
        self.payloads, self.origins, self.committed = list(payloads), list(origins), done
        return 41

    def append_here(self, payloads: Sequence[bytes], origins: Sequence[int], done: Any, at_once: Any) -> int:
        self.at_once = at_once
        return self.append(payloads, origins, done)


def jobs(*names: str) -> list[Job]:
    return [Job(name, b'{"jid":"%b"}' % name.encode(), False) for name in names]


def filled(turn: Turn) -> list[tuple[str, Verdicts]]:
    """Two commands of two connections; what they are answered."""
    answers: list[tuple[str, Verdicts]] = []
    turn.parts.append((jobs("one", "two"), Epoch(7), lambda verdicts: answers.append(("a", verdicts)), "fwp"))
    turn.parts.append((jobs("three"), Epoch(8), lambda verdicts: answers.append(("b", verdicts)), "http"))
    return answers


@pytest.mark.parametrize("refusal", [None, FULL])
def test_all_commands_share_a_commit_and_its_answer(refusal: Refusal | None) -> None:
    door, disk = Door(), Disk()
    turn = Turn(door, cast(Journal, disk))
    answers = filled(turn)
    turn.since = 3.0
    turn.hand_over()
    assert disk.payloads == [b'{"jid":"one"}', b'{"jid":"two"}', b'{"jid":"three"}']
    assert (disk.origins, turn.first) == ([7, 7, 8], 41)
    assert door.told == ["watches since 3.0"]
    assert answers == []
    disk.committed(refusal)
    assert answers == [("a", refusal), ("b", refusal)]
    assert door.told[1:] == ["stored" if refusal is None else f"stored {FULL.message}"]
    assert turn.parts == []


def test_what_was_told_too_late_is_stored_all_the_same_and_not_answered_again() -> None:
    door, disk = Door(), Disk()
    turn = Turn(door, cast(Journal, disk))
    answers = filled(turn)
    turn.hand_over()
    turn.expire()
    assert answers == [("a", SLOW_COMMIT), ("b", SLOW_COMMIT)]
    disk.committed(None)
    assert len(answers) == 2
    assert door.told[1:] == ["refuses 3: slow_disk", "stored"]


@pytest.mark.usefixtures("defects_expected")
def test_a_client_that_fails_when_it_is_told_keeps_nobody_from_the_answer() -> None:
    door, disk = Door(), Disk()
    turn = Turn(door, cast(Journal, disk))

    def fails(verdicts: Verdicts) -> None:
        raise RuntimeError("a defect")

    turn.parts.append((jobs("zero"), Epoch(6), fails, "fwp"))
    answers = filled(turn)
    turn.hand_over()
    disk.committed(None)
    assert answers == [("a", None), ("b", None)]


def lent() -> tuple[Door, Disk, LentTurn, list[str], list[Verdicts]]:
    door, disk = Door(), Disk()
    turn = LentTurn(door, cast(Journal, disk))
    sent: list[str] = []
    heard: list[Verdicts] = []
    turn.add(jobs("one"), Epoch(7), heard.append, lambda: sent.append("+OK"))
    turn.hand_over()
    return door, disk, turn, sent, heard


def test_the_thread_answers_at_once_and_the_loop_hears_later() -> None:
    door, disk, turn, sent, heard = lent()
    disk.at_once()
    assert (sent, heard) == (["+OK"], [])
    turn.expire()  # the loop is about to hear of it
    assert heard == []
    disk.committed(None)
    assert heard == [None]
    assert door.told == ["heard of", "stored"]


def test_what_the_loop_has_answered_the_thread_does_not() -> None:
    _, disk, turn, sent, heard = lent()
    turn.expire()
    disk.at_once()
    assert (sent, heard) == ([], [SLOW_COMMIT])


def test_what_took_too_long_the_thread_leaves_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    _, disk, _, sent, heard = lent()
    late = time.monotonic() + ANSWER_WITHIN
    monkeypatch.setattr(turn_module, "time", SimpleNamespace(monotonic=lambda: late))
    disk.at_once()
    assert sent == []
    disk.committed(None)
    assert heard == [None]
