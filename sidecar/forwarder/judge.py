"""What becomes of the jobs of a command, by upstream's reply or by the loss of the link. Pure: it changes nothing.

`judge` and `after_loss` give each job exactly one fate. `settlement` carries the fates out, once, and calls those who
wait when all of it is done.

A refusal that isn't Faktory's word about a job is the server's state: the job goes again, and the link makes a pause.
Only a job that fails *while others are accepted* is looked at by itself: it is set apart at the first text that nobody
knows, and after some refusals with a known one. There it is tried again minutes apart, and only unknown texts count.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from sidecar.errors import Refusal
from sidecar.forwarder.batching import Batch
from sidecar.jobs import Entry, Place, Trouble
from sidecar.protocol.replies import OK, ProtocolError, bulk_body, error_text
from sidecar.upstream.refusals import Meaning, may_be_applied, meaning, reply_line

ALL_ACCEPTED = b"$2\r\n{}\r\n"

UNKNOWN_TRIES = 5
"""Refusals that count, at least `COUNT_EVERY` seconds apart, after which an acknowledged job is refused for good."""
COUNT_EVERY = 60.0
SETBACKS = 5
"""Refusals with a known passing text, while others were accepted, after which a job waits apart."""
LONE_TRIES = 3
"""Refusals with an unknown text, while nothing else was accepted, after which it is held to be about the job. The
pauses between them are 0.6 s together: whoever waits for such jobs can still be answered in time."""
SUSPECT_KILLS, POISON_KILLS = 2, 5
"""Links lost with the same batch at the head: from the first number on it travels alone and is split, until the
culprit stands alone; at the second it is a dead letter, if others went through meanwhile: a link that dies of all
says nothing about a job."""

LOST = Refusal("in doubt: the connection to Faktory was lost before the reply; the job may have been enqueued").line()

_decode_map = msgspec.json.Decoder(dict[str, str])


class Unreadable(Exception):
    """A reply that no Faktory gives to this command."""


class Pace(enum.IntEnum):
    """What the link should do about it."""

    ON = 0
    PAUSE = 1
    LESS = 2
    """Make a pause, and carry less at once."""


class Fates(msgspec.Struct, kw_only=True):
    """What becomes of the jobs of one command; each is in one of the lists.

    Attributes:
        accepted: upstream has them.
        told: upstream, or the link's loss, has refused them, and their producers wait: with the reply that they get.
        dead: acknowledged, and refused for good: with upstream's words.
        again: to be sent again, before all others; `behind` after them, for others to go first.
        split: to be sent again as two halves; `alone`: with nothing else in flight.
        apart: to wait apart: with upstream's words.
        over: their producers have been told long ago.
        troubles: what is known of single jobs from now on.
        pace: for the link; `text` is upstream's words about it.
        refused: what upstream has said of those who are told: their number counts as refusals.
        in_doubt: jobs that may be upstream all the same.
        lost: all of it because the link was lost.
        as_push: jobs that leave as a `PUSH` from now on.
        no_pushb: this server has no `PUSHB`.
        drop: why this connection can't be used any more.
    """

    accepted: Sequence[Entry] = ()
    told: Sequence[tuple[Entry, bytes]] = ()
    dead: Sequence[tuple[Entry, str]] = ()
    again: Sequence[Entry] = ()
    behind: Sequence[Entry] = ()
    split: Sequence[Entry] = ()
    alone: bool = False
    apart: Sequence[tuple[Entry, str]] = ()
    over: Sequence[Entry] = ()
    troubles: Sequence[tuple[Entry, Trouble]] = ()
    pace: Pace = Pace.ON
    text: str = ""
    in_doubt: int = 0
    lost: bool = False
    as_push: Sequence[Entry] = ()
    no_pushb: bool = False
    drop: str | None = None


def judge(batch: Batch, reply: bytes, *, delivered: int, now: float) -> Fates:
    """What a command's reply means for its jobs.

    Args:
        reply: raw.
        delivered: jobs that upstream has accepted before this reply, since the start.
        now: seconds of the clock that `Trouble.counted_at` has.

    Raises:
        Unreadable: it is no reply to this command.
    """
    if reply == (OK if batch.single else ALL_ACCEPTED):
        return _accepted(batch)
    text = _refused_as_a_whole(reply)
    others = delivered > batch.delivered
    if text is not None:
        return _refused(batch, reply, text, others=others, delivered=delivered, now=now)
    if batch.single:
        raise Unreadable(f"not a reply to PUSH: {reply[:200]!r}")
    refused = _refused_jobs(reply)
    accepted = [entry for entry in batch.entries if entry.jid not in refused]
    sorter = _Sorter(others=others or bool(accepted), delivered=delivered + len(accepted), now=now)
    for entry in batch.entries:
        if entry.jid in refused:
            sorter.add(entry, refused[entry.jid])
    return sorter.fates(accepted)


def _accepted(batch: Batch) -> Fates:
    entries = batch.entries
    first = entries[0].trouble if batch.single else None
    return Fates(accepted=entries, no_pushb=first is not None and first.as_push)


def _refused(batch: Batch, reply: bytes, text: str, *, others: bool, delivered: int, now: float) -> Fates:
    """A command that was refused as a whole."""
    kind = meaning(text)
    wanted = [entry for entry in batch.entries if entry.place != Place.DROPPED]
    over = [entry for entry in batch.entries if entry.place == Place.DROPPED]
    if kind is Meaning.LINK and not any(entry.once for entry in batch.entries):
        return Fates(again=wanted, over=over, drop=text)
    if not batch.single and kind is Meaning.UNSUPPORTED:
        return Fates(again=wanted, over=over, no_pushb=True, text=text)
    about_one = kind in (Meaning.FINAL, Meaning.UNKNOWN) and len(batch.entries) > 1
    if about_one:
        return _about_one(wanted, over, text, others=others or kind is Meaning.FINAL)
    sorter = _Sorter(others=others, delivered=delivered, now=now)
    for entry in batch.entries:
        sorter.add(entry, text, reply=reply if batch.single else None, whole=not batch.single)
    fates = sorter.fates(())
    if kind is Meaning.LINK:
        fates.drop = text
    return fates


def _about_one(wanted: list[Entry], over: list[Entry], text: str, *, others: bool) -> Fates:
    """A batch was refused for what may be in one of its jobs: look for it, unless the server refuses everything."""
    doubt = len(wanted) if may_be_applied(text) else 0
    if others or any(_trouble(entry).lone >= LONE_TRIES - 1 for entry in wanted):
        return Fates(split=wanted, over=over, text=text, in_doubt=doubt)
    troubles = [(entry, _changed(entry, lone=_trouble(entry).lone + 1)) for entry in wanted]
    return Fates(again=wanted, over=over, troubles=troubles, pace=Pace.PAUSE, text=text, in_doubt=doubt)


class _Sorter:
    """Finds the fate of each refused job.

    Args:
        others: upstream has accepted other jobs since these were sent.
        delivered: jobs that it has accepted since the start.
    """

    def __init__(self, *, others: bool, delivered: int, now: float) -> None:
        self._others = others
        self._delivered = delivered
        self._now = now
        self._told: list[tuple[Entry, bytes]] = []
        self._dead: list[tuple[Entry, str]] = []
        self._again: list[Entry] = []
        self._apart: list[tuple[Entry, str]] = []
        self._as_push: list[Entry] = []
        self._troubles: list[tuple[Entry, Trouble]] = []
        self._pace, self._text, self._doubt = Pace.ON, "", 0

    def add(self, entry: Entry, text: str, *, reply: bytes | None = None, whole: bool = False) -> None:
        """A job that was refused with this text; `whole`: as the only job of a `PUSHB` that wasn't carried out."""
        kind = meaning(text)
        self._doubt += may_be_applied(text)
        if entry.verdict is not None:
            self._told.append((entry, reply if reply is not None else reply_line(text)))
            if kind not in (Meaning.FINAL, Meaning.UNKNOWN):
                self._slow_down(kind, text)
        elif kind is Meaning.FINAL:
            self._dead.append((entry, text))
        elif _trouble(entry).apart:
            self._once_more_apart(entry, text, kind)
        else:
            self._put_off(entry, text, kind, whole)

    def _put_off(self, entry: Entry, text: str, kind: Meaning, whole: bool) -> None:
        trouble, unknown = _trouble(entry), kind is Meaning.UNKNOWN
        if self._others:
            trouble = msgspec.structs.replace(trouble, setbacks=trouble.setbacks + 1)
            alone = unknown or trouble.setbacks >= SETBACKS
        elif unknown and whole:  # is it the job, the server, or the verb?
            trouble, alone = msgspec.structs.replace(trouble, as_push=True), False
            self._as_push.append(entry)
        else:
            trouble = msgspec.structs.replace(trouble, lone=trouble.lone + unknown)
            alone = trouble.lone >= LONE_TRIES
        if alone:
            trouble = msgspec.structs.replace(
                trouble, apart=True, tries=int(unknown), counted_at=self._now, delivered=self._delivered
            )
            self._apart.append((entry, text))
        else:
            self._again.append(entry)
        if not (alone and self._others):
            self._slow_down(kind, text)
        self._troubles.append((entry, trouble))

    def _once_more_apart(self, entry: Entry, text: str, kind: Meaning) -> None:
        trouble = _trouble(entry)
        counts = (
            kind is Meaning.UNKNOWN
            and self._now - trouble.counted_at >= COUNT_EVERY
            and self._delivered > trouble.delivered
        )
        if counts:
            trouble = msgspec.structs.replace(
                trouble, tries=trouble.tries + 1, counted_at=self._now, delivered=self._delivered
            )
            self._troubles.append((entry, trouble))
        if trouble.tries >= UNKNOWN_TRIES:
            self._dead.append((entry, text))
        else:
            self._apart.append((entry, text))

    def _slow_down(self, kind: Meaning, text: str) -> None:
        self._pace = max(self._pace, Pace.LESS if kind is Meaning.TIMED_OUT else Pace.PAUSE)
        self._text = text

    def fates(self, accepted: Sequence[Entry]) -> Fates:
        """All of them, with those that were accepted."""
        return Fates(
            accepted=accepted,
            told=self._told,
            dead=self._dead,
            again=self._again,
            apart=self._apart,
            as_push=self._as_push,
            troubles=self._troubles,
            pace=self._pace,
            text=self._text,
            in_doubt=self._doubt,
        )


def after_loss(batch: Batch, *, head: bool, by_silence: bool, delivered: int) -> Fates:
    """What the loss of the link before its reply means for a command's jobs.

    Args:
        head: it was the oldest that was owed a reply, the one that upstream was working on.
        by_silence: the link was given up because no reply came.
        delivered: jobs that upstream has accepted since the start.
    """
    entries = [entry for entry in batch.entries if not (entry.once or entry.place == Place.DROPPED)]
    gone = [entry for entry in batch.entries if entry.once or entry.place == Place.DROPPED]
    fates = Fates(
        told=[(entry, LOST) for entry in gone if entry.verdict is not None],
        over=[entry for entry in gone if entry.verdict is None],
        in_doubt=len(batch.entries),
        lost=True,
    )
    if not head or by_silence or not entries:
        fates.again = entries
        return fates
    fates.troubles = [(entry, _suspected(entry, delivered)) for entry in entries]
    kills = max(trouble.kills for _, trouble in fates.troubles)
    if len(entries) == 1 and batch.alone and kills >= POISON_KILLS and entries[0].verdict is None:
        if delivered > fates.troubles[0][1].suspected_at:
            words = f"the link was lost {kills} times with this job, while others went through"
            fates.dead = [(entries[0], words)]
        else:
            fates.behind = entries
    elif kills >= SUSPECT_KILLS:
        fates.split, fates.alone = entries, True
    else:
        fates.again = entries
    return fates


_NONE = Trouble()


def _trouble(entry: Entry) -> Trouble:
    return entry.trouble or _NONE


def _changed(entry: Entry, *, lone: int) -> Trouble:
    return msgspec.structs.replace(_trouble(entry), lone=lone)


def _suspected(entry: Entry, delivered: int) -> Trouble:
    before = _trouble(entry)
    since = before.suspected_at if before.kills else delivered
    return msgspec.structs.replace(before, kills=before.kills + 1, suspected_at=since)


def _refused_as_a_whole(reply: bytes) -> str | None:
    """The error text of a command that was refused, without its leading `ERR `; None when it was carried out."""
    text = error_text(reply)
    return text.removeprefix("ERR ") if text is not None else None


def _refused_jobs(reply: bytes) -> dict[str, str]:
    """The refused jobs of a `PUSHB` that was carried out, by jid: error texts as the server has them.

    Raises:
        Unreadable: it is no map.
    """
    try:
        return _decode_map.decode(bulk_body(reply) or b"")
    except (msgspec.DecodeError, ProtocolError) as error:
        raise Unreadable(f"not a reply to PUSHB: {reply[:200]!r}") from error
