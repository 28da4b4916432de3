"""Lines out of a byte stream, however it is cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.lines import MAX_LINE, LineReader, LineTooLong

EXAMPLES = [
    (b"", [], 0),
    (b"PUSH {}\r\n", [b"PUSH {}"], 0),
    (b"PUSH {}\n", [b"PUSH {}"], 0),
    (b"a\r\nb\nc\r\n", [b"a", b"b", b"c"], 0),
    (b"\n\r\n\n", [b"", b"", b""], 0),
    (b"a\rb\r\r\n", [b"a\rb\r"], 0),
    (b"HELLO {}\r\nPUSH {", [b"HELLO {}"], 6),
    (b"unfinished\r", [], 11),
    (b"\xff\x00\x1f\n", [b"\xff\x00\x1f"], 0),
]


@pytest.mark.parametrize("step", [1, 2, 3, 10_000])
@pytest.mark.parametrize(("stream", "lines", "pending"), EXAMPLES)
def test_lines(stream: bytes, lines: list[bytes], pending: int, step: int) -> None:
    reader = LineReader()
    assert fed(reader, stream, step) == lines
    assert reader.pending == pending


@given(st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"")), max_size=8), st.data())
def test_any_cut_gives_the_same_lines(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + data.draw(st.sampled_from([b"\n", b"\r\n"])) for line in lines)
    whole = LineReader().feed(stream)
    reader = LineReader()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == whole
    assert len(found) == len(lines)
    assert reader.pending == 0


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_the_longest_line_that_fits(step: int) -> None:
    assert fed(LineReader(limit=10), b"12345678\r\n123456789\n", step) == [b"12345678", b"123456789"]


@pytest.mark.parametrize("step", [1, 2, 3, 100])
@pytest.mark.parametrize("stream", [b"123456789\r\n", b"1234567890\n", b"1234567890", b"ok\nok\r\n1234567890123"])
def test_one_byte_more_is_too_long(stream: bytes, step: int) -> None:
    reader = LineReader(limit=10)
    with pytest.raises(LineTooLong, match="10 bytes"):
        fed(reader, stream, step)
    with pytest.raises(LineTooLong):
        reader.feed(b"\n")
    assert reader.pending == 0


def test_lines_before_the_long_one_are_not_lost() -> None:
    with pytest.raises(LineTooLong) as caught:
        LineReader(limit=10).feed(b"one\r\ntwo\n" + b"x" * 20 + b"\nthree\n")
    assert caught.value.complete == [b"one", b"two"]
    assert caught.value.limit == 10


def test_a_long_piece_of_short_lines_is_no_long_line() -> None:
    assert LineReader(limit=10).feed(b"12345678\n" * 100) == [b"12345678"] * 100


@pytest.mark.parametrize("size", [1, 64 * 1024])
def test_time_is_linear_in_the_length(size: int) -> None:
    """Four times the bytes take about four times as long; a reader that looks again at what it has takes sixteen."""
    short, long = (1 << 18, 1 << 20) if size == 1 else (MAX_LINE // 4, MAX_LINE)
    assert quickest(long, size) < 9 * quickest(short, size) + 0.02


def quickest(length: int, size: int) -> float:
    """Seconds to read a line of `length` bytes that arrives in pieces of `size`, the best of three."""
    times = []
    piece = b"x" * size
    for _ in range(3):
        reader = LineReader()
        start = time.perf_counter()
        for _ in range(length // size - 1):
            reader.feed(piece)
        lines = reader.feed(piece[:-1] + b"\n")
        times.append(time.perf_counter() - start)
        assert [len(line) for line in lines] == [length - 1]
    return min(times)


def fed(reader: LineReader, stream: bytes, step: int) -> list[bytes]:
    return [line for start in range(0, len(stream), step) for line in reader.feed(stream[start : start + step])]
