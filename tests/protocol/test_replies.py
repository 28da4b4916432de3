"""Replies out of a byte stream, however it is cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.protocol.replies import MAX_REPLY, NIL, OK, ProtocolError, ReplyReader, bulk, bulk_body, error_text

REPLIES = [
    OK,
    NIL,
    b"+\r\n",
    b'+HI {"v":2,"i":4735,"s":"3d2a"}\r\n',
    b"-ERR unknown command X\r\n",
    b"-NOTUNIQUE Job not unique\r\n",
    b"-ERR unknown worker a\nb\rc\r\n",
    b"-\xff\r\n",
    b":0\r\n",
    b":-12\r\n",
    b":9223372036854775807\r\n",
    bulk(b""),
    bulk(b"{}"),
    bulk(b"+OK\r\n$5\r\n"),
    bulk(b"\r\n" * 50),
    bulk(bytes(range(256))),
]

BROKEN = [
    *(
        b"OK\r\n",
        b"\r\n",
        b" +OK\r\n",
        b"*1\r\n+OK\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x15\x03\x01\x00\x02",
        b"\0",
    ),
    *(b"$\r\n", b"$-2\r\n", b"$ 2\r\n{}\r\n", b"$+2\r\n{}\r\n", b"$02\r\n{}\r\n", b"$0x2\r\n{}\r\n", b"$2 \r\n{}\r\n"),
    *(
        b"$2\n{}\r\n\r\n",
        b"$2\r\n{}x\n+",
        b"$2\r\n{}\n\r",
        b"$99999999999999999999\r\n",
        b"$" + b"1" * 30,
        b"$-1\n      \r\n",
    ),
    *(b":\r\n", b":1.5\r\n", b":x\r\n", b":12345678901234567890\r\n", b":" + b"1" * 30),
]


@pytest.mark.parametrize("step", [1, 2, 3, 10_000])
@pytest.mark.parametrize("reply", REPLIES)
def test_each_reply_comes_back_raw(reply: bytes, step: int) -> None:
    reader = ReplyReader()
    assert fed(reader, reply, step) == [reply]
    assert reader.pending == 0


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_many_replies_come_back_in_order(step: int) -> None:
    assert fed(ReplyReader(), b"".join(REPLIES), step) == REPLIES


@given(st.lists(st.sampled_from(REPLIES), max_size=8), st.data())
def test_any_cut_gives_the_same_replies(replies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(replies)
    reader = ReplyReader()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == replies


@pytest.mark.parametrize("step", [1, 2, 3, 10_000])
@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_without_its_last_byte_is_not_there_yet(reply: bytes, step: int) -> None:
    reader = ReplyReader()
    assert fed(reader, reply[:-1], step) == []
    assert reader.pending == len(reply) - 1
    assert reader.feed(b"\n+") == [reply]
    assert reader.pending == 1


@pytest.mark.parametrize("step", [1, 2, 3, 10_000])
@pytest.mark.parametrize("stream", BROKEN)
def test_what_is_no_reply(stream: bytes, step: int) -> None:
    reader = ReplyReader()
    with pytest.raises(ProtocolError):
        fed(reader, stream, step)
    with pytest.raises(ProtocolError):
        reader.feed(OK)


@given(st.binary(max_size=40), st.integers(1, 5))
def test_garbage_either_is_replies_or_is_refused_however_it_is_cut(stream: bytes, step: int) -> None:
    assert outcome(stream, step) == outcome(stream, 1000)


def outcome(stream: bytes, step: int) -> bool:
    try:
        found = fed(ReplyReader(), stream, step)
    except ProtocolError:
        return False
    assert stream.startswith(b"".join(found))
    return True


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("reply", [bulk(b"x" * 94), b"+" + b"x" * 97 + b"\r\n"])
def test_the_limit_counts_all_of_a_reply(reply: bytes, step: int) -> None:
    assert fed(ReplyReader(limit=len(reply)), reply + reply, step) == [reply, reply]
    with pytest.raises(ProtocolError, match="longer than"):
        fed(ReplyReader(limit=len(reply) - 1), reply, step)


def test_a_length_over_the_limit_is_refused_at_once() -> None:
    with pytest.raises(ProtocolError, match="longer than 67,108,864 bytes"):
        ReplyReader().feed(b"$%d\r\n" % MAX_REPLY)


def test_a_broken_reply_is_quoted_shortly() -> None:
    with pytest.raises(ProtocolError) as caught:
        ReplyReader().feed(b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 1000)
    assert "HTTP/1.1 400 Bad Request" in str(caught.value)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("kind", [b"$%d\r\n", b"-ERR "])
@pytest.mark.parametrize("size", [1, 64 * 1024])
def test_time_is_linear_in_the_length(kind: bytes, size: int) -> None:
    short, long = (1 << 18, 1 << 20) if size == 1 else (1 << 23, 1 << 25)
    assert quickest(kind, long, size) < 9 * quickest(kind, short, size) + 0.02


def quickest(kind: bytes, length: int, size: int) -> float:
    """Seconds to read a reply of about `length` bytes that arrives in pieces of `size`, the best of three."""
    times = []
    piece = b"x" * size
    header = kind % length if b"%" in kind else kind
    for _ in range(3):
        reader = ReplyReader()
        start = time.perf_counter()
        reader.feed(header)
        for _ in range(length // size):
            reader.feed(piece)
        replies = reader.feed(b"\r\n")
        times.append(time.perf_counter() - start)
        assert [len(reply) for reply in replies] == [len(header) + length + 2]
    return min(times)


def test_many_small_replies_in_one_piece_take_linear_time() -> None:
    start = time.perf_counter()
    assert len(ReplyReader().feed(bulk(b"{}") * 200_000)) == 200_000
    assert time.perf_counter() - start < 5


def test_bulk() -> None:
    assert bulk(b"") == b"$0\r\n\r\n"
    assert bulk(b'{"a":"b"}') == b'$9\r\n{"a":"b"}\r\n'


@pytest.mark.parametrize("body", [b"", b"{}", b"\r\n", bytes(range(256)) * 10])
def test_bulk_body(body: bytes) -> None:
    assert bulk_body(bulk(body)) == body


def test_bulk_body_of_nil() -> None:
    assert bulk_body(NIL) is None


@pytest.mark.parametrize(
    "reply", [OK, b"-ERR x\r\n", b":1\r\n", b"", b"$2\r\n{}", b"$2\r\n{}\r\n\r\n", b"$3\r\n{}\r\n", b"$x\r\n"]
)
def test_bulk_body_of_something_else(reply: bytes) -> None:
    with pytest.raises(ProtocolError):
        bulk_body(reply)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"-ERR foo\r\n", "ERR foo"),
        (b"-NOTUNIQUE Job not unique\r\n", "NOTUNIQUE Job not unique"),
        (b"-\r\n", ""),
        (b"-ERR \xff\xc3\xa9\r\n", "ERR \ufffdé"),
        (OK, None),
        (NIL, None),
        (bulk(b"-ERR"), None),
        (b":-1\r\n", None),
    ],
)
def test_error_text(reply: bytes, text: str | None) -> None:
    assert error_text(reply) == text


def fed(reader: ReplyReader, stream: bytes, step: int) -> list[bytes]:
    return [reply for start in range(0, len(stream), step) for reply in reader.feed(stream[start : start + step])]
