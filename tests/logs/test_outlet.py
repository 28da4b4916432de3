"""Lines to a descriptor whose reader stops, leaves, or was never there."""

from __future__ import annotations

import fcntl
import os
import pty
import threading
import time
from collections.abc import Iterator

import pytest

from sidecar.outlet import QUEUE_BYTES, QUEUE_LINES, Outlet, text_stream
from tests.real.polling import wait_for

PATIENCE = 10.0
"""Seconds for a line to be written."""


class Pipe:
    """A pipe whose reader reads when it likes."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.outlet = Outlet(self.writer)
        self.outlet.gap = lambda lines: b"gap of %d\n" % lines

    def fill(self) -> None:
        """So full that nothing can be written."""
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b"x" * 1023 + b"\n")
        except BlockingIOError:
            pass
        os.set_blocking(self.writer, True)

    def read_all(self) -> bytes:
        """Everything, until the outlet has nothing left."""
        written = threading.Event()
        read = bytearray()

        def reading() -> None:
            while not written.is_set() or self._more():
                if self._more():
                    read.extend(os.read(self.reader, 1 << 16))

        thread = threading.Thread(target=reading)
        thread.start()
        assert self.outlet.flush(PATIENCE)
        written.set()
        thread.join()
        return bytes(read)

    def _more(self) -> bool:
        os.set_blocking(self.reader, False)
        try:
            return bool(self._peek())
        finally:
            os.set_blocking(self.reader, True)

    def _peek(self) -> int:
        return int.from_bytes(fcntl.ioctl(self.reader, 0x541B, b"\0" * 4), "little")  # FIONREAD


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)


def test_lines_come_in_their_order(pipe: Pipe) -> None:
    for index in range(100):
        pipe.outlet.put(b"%d\n" % index)
    assert pipe.read_all() == b"".join(b"%d\n" % index for index in range(100))
    assert not pipe.outlet.lost


@pytest.mark.parametrize("size", [20, 2_000])
def test_nobody_reads_what_finds_no_room_is_dropped_counted_and_told(pipe: Pipe, size: int) -> None:
    pipe.fill()
    lines = QUEUE_LINES + 2_000
    started = time.monotonic()
    for index in range(lines):
        pipe.outlet.put(b"%d".ljust(size - 1) % index + b"\n")
    assert time.monotonic() - started < 5.0
    lost = pipe.outlet.lost
    assert lost >= 2_000 - 1
    assert not pipe.outlet.flush(0.05)
    read = pipe.read_all().replace(b"x" * 1023 + b"\n", b"")
    assert read.count(b"\n") == lines - lost + 1
    assert read.endswith(b"gap of %d\n" % lost)
    assert len(read) <= QUEUE_BYTES + 2 * size + 100


def test_a_gap_is_told_where_it_was(pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(QUEUE_LINES + 100):
        pipe.outlet.put(b"early\n")
    lost = pipe.outlet.lost
    os.read(pipe.reader, 1 << 16)
    wait_for(lambda: pipe._peek() > 10_000, what="the queue has room again")
    pipe.outlet.put(b"late\n")
    assert pipe.read_all().endswith(b"gap of %d\nlate\n" % lost)
    assert pipe.outlet.lost == lost


def test_a_reader_who_has_left_costs_lines_and_nothing_else() -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    pipe.outlet.put(b"nobody reads this\n")
    assert pipe.outlet.flush(PATIENCE)
    assert pipe.outlet.lost == 1


def test_a_terminal_that_is_gone_costs_lines_and_nothing_else() -> None:
    reader, terminal = pty.openpty()
    outlet = Outlet(terminal)
    assert outlet.is_terminal
    os.close(reader)
    outlet.put(b"nobody reads this\n")
    assert outlet.flush(PATIENCE)
    assert outlet.lost == 1


def test_a_descriptor_that_others_made_non_blocking_is_waited_for(pipe: Pipe) -> None:
    pipe.fill()
    os.set_blocking(pipe.writer, False)
    pipe.outlet.put(b"late\n")
    assert not pipe.outlet.flush(0.05)
    assert pipe.read_all().endswith(b"\nlate\n")
    assert not os.get_blocking(pipe.writer)


def test_the_descriptor_stays_as_it_was(pipe: Pipe) -> None:
    pipe.outlet.put(b"line\n")
    assert pipe.outlet.flush(PATIENCE)
    assert os.get_blocking(pipe.writer)


def test_without_a_thread_lines_wait_and_the_end_writes_what_blocks_nobody(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    pipe.outlet.put(b"first\n")
    pipe.outlet.put(b"second\n")
    assert pipe.outlet.flush(PATIENCE)
    assert os.read(pipe.reader, 100) == b"first\nsecond\n"
    pipe.fill()
    pipe.outlet.put(b"third\n")
    assert pipe.outlet.flush(PATIENCE)
    assert pipe.outlet.lost == 1


def test_a_text_stream_is_utf8_and_a_print_is_a_line(pipe: Pipe) -> None:
    stream = text_stream(pipe.outlet)
    print("é half \udcff", 1, file=stream)
    assert pipe.read_all() == b"\xc3\xa9 half \\udcff 1\n"
    assert stream.encoding == "utf-8"
    assert not stream.isatty()
