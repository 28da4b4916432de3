"""What the system asks of this process: noted from its first moment on, and read by the command that runs.

A signal without a handler ends a process at once, and one of number 1 (a container's) doesn't even hear it. So the
handlers are installed before anything that takes time is imported, and what comes before anybody reads is kept.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

FAULTS: Final = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP", "SIGEMT")
"""They say that the process is broken: it ends there, for whoever looks at its remains."""
HARMLESS: Final = ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGINFO", "SIGTSTP", "SIGTTIN", "SIGTTOU")
"""They end no process: ignored, or for the terminal's job control."""
OTHERS: Final = ("SIGKILL", "SIGSTOP", "SIGPIPE", "SIGXFSZ")
"""Those that can't be handled, and those that Python turns into errors of the call."""
ALWAYS: Final = (signal.SIGTERM, signal.SIGINT)
"""Heard also where the parent ignored them; another one stays ignored then, as `nohup` asks for."""
INSISTING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""The second of these stops at once. Others come in groups (a terminal that closes) or again and again (SIGXCPU)."""
ENDED_BY: Final = 128
"""Plus a signal's number: the exit code of a process that it ended, as shells have it."""

Handler = Callable[[int, FrameType | None], object] | int | None


def catchable() -> list[signal.Signals | int]:
    """The signals that would end this process though nothing is wrong with it."""
    left = {getattr(signal, name, None) for name in (*FAULTS, *HARMLESS, *OTHERS)}
    return sorted(number for number in signal.valid_signals() if number not in left)


def name_of(number: int) -> str:
    """`SIGTERM`; `signal 35` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Inbox:
    """The signals that came and that nobody has read."""

    def __init__(self) -> None:
        self._noted: deque[int] = deque()
        self._call: Callable[[], object] | None = None
        self._before: dict[int, Handler] = {}

    def arm(self) -> None:
        """Note all that come from now on; those that the parent had blocked, too. On the main thread."""
        for number in catchable():
            before = signal.getsignal(number)
            if before is signal.SIG_IGN and number not in ALWAYS:
                continue
            try:
                signal.signal(number, self._note)
            except OSError:  # the C library keeps some for itself
                continue
            self._before[number] = before
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)

    def disarm(self) -> None:
        """Leave signals to what they do by themselves, for a command that has nothing to finish; what came counts."""
        for number, before in self._before.items():
            signal.signal(number, _as_before(before))
        self._before = {}
        while self._noted:
            signal.raise_signal(self._noted.popleft())

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted.append(number)
        if self._call is not None:
            self._call()

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Gives the signals in their order, those first that came before; in trio, on the main thread."""
        reader = Reader(self._noted)
        ours = not self._before
        if ours:
            self.arm()
        self._call = reader.ring
        try:
            yield reader
        finally:
            self._call = None
            if ours:
                self.disarm()


class Reader:
    """What has come, number by number; it never ends."""

    def __init__(self, noted: deque[int]) -> None:
        import trio  # slow

        self._noted = noted
        self._token = trio.lowlevel.current_trio_token()
        self._new_event = trio.Event
        self._arrived = trio.Event()

    def ring(self) -> None:
        """Another one came."""
        self._token.run_sync_soon(lambda: self._arrived.set())

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> int:
        while not self._noted:
            self._arrived = self._new_event()
            await self._arrived.wait()
        return self._noted.popleft()


def _as_before(before: Handler) -> Handler:
    if os.getpid() == 1 and before is signal.SIG_DFL:
        return _end  # for process 1 the system leaves the signal away where there is no handler
    return before


def _end(number: int, _: FrameType | None) -> None:
    os._exit(ENDED_BY + number)


INBOX: Final = Inbox()
"""The process's own."""
