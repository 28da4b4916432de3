"""Plain pushes are read from raw bytes as the line reader and the certain-check would read them."""

from __future__ import annotations

import pytest

from sidecar.protocol.jobs import examine, stamp
from sidecar.protocol.lines import LineReader
from sidecar.protocol.pushes import STAMP_STEP, plain_pushes

CLOCK = 1_795_000_000.25
PLAIN = b'PUSH {"jid":"12345678","jobtype":"T","args":[1]}'


@pytest.mark.parametrize("ends", [[b"\r\n"], [b"\n"], [b"\r\n", b"\n", b"\r\n"], [b"\n"] * 50])
def test_they_are_what_line_by_line_reading_gives(ends: list[bytes]) -> None:
    data = b"".join(PLAIN + end for end in ends)
    lines = LineReader().feed(data)
    expected = [examine(line[5:], stamp(CLOCK + place * STAMP_STEP)) for place, line in enumerate(lines)]
    assert plain_pushes(data, CLOCK) == expected
    assert len({job.payload for job in expected if job is not None}) == len(ends)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\r\n",
        PLAIN,
        PLAIN + b"\r",
        PLAIN + b"\n" + PLAIN,
        PLAIN + b"\n\n",
        PLAIN + b"\nINFO\n",
        b"INFO\n" + PLAIN + b"\n",
        b"push" + PLAIN[4:] + b"\n",
        b"PUSHB [" + PLAIN[5:] + b"]\n",
        b"PUSH\n",
        b"PUSH \n",
        b" " + PLAIN + b"\n",
        PLAIN[:-1] + b',"custom":{"unique_for":60}}\n',
        PLAIN[:-1] + b',"queue":"a b"}\n',
        b'PUSH {"jid":"short","jobtype":"T","args":[]}\n',
    ],
)
def test_anything_else_is_left_to_the_event_loop(data: bytes) -> None:
    assert plain_pushes(data, CLOCK) is None


def test_a_second_carriage_return_belongs_to_the_line() -> None:
    data = PLAIN + b"\r\r\n"
    (line,) = LineReader().feed(data)
    jobs = plain_pushes(data, CLOCK)
    assert jobs is not None
    assert jobs[0] == examine(line[5:], stamp(CLOCK))
