"""Large JSON: told what it costs before it is decoded, and judged as small JSON is."""

from __future__ import annotations

import tracemalloc

import pytest

from sidecar.protocol.jobs import examine, examine_array, stamp
from sidecar.protocol.large import LARGE

MIB = 1 << 20
NOW = stamp(1_700_000_000.0)


def job(args: bytes, rest: bytes = b"") -> bytes:
    return b'{"jid":"a-large-job","jobtype":"T","args":%b%b}' % (args, rest)


@pytest.mark.parametrize(
    "text",
    [
        b"x" * MIB,
        "ü😀".encode() * (MIB // 6),
        b'\\n\\"\\\\\\u00fc' * (MIB // 8),
        b"\\ud83d\\ude00" * (MIB // 12),
        b"[{,:" * (MIB // 4),
        b'\\"{},' * (MIB // 5),
    ],
    ids=["ascii", "utf-8", "escapes", "pairs", "structure in a string", "quotes in a string"],
)
@pytest.mark.parametrize("args", [b'["%b"]', b'[1,{"k":["%b","short"]}]', b'[ "%b" , "%b" ]'])
def test_a_job_with_a_long_string_is_taken_byte_for_byte(text: bytes, args: bytes) -> None:
    payload = job(args.replace(b"%b", text))
    taken = examine(payload, NOW)
    assert taken is not None
    assert taken.jid == "a-large-job"
    assert taken.payload == payload[:-1] + b',"created_at":"%b","retry":25}' % NOW


def test_stamps_that_are_there_are_kept() -> None:
    payload = job(b'["%b"]' % (b"x" * MIB), b',"created_at":"2024-01-01T00:00:00Z","retry":3 ') + b" "
    taken = examine(payload, NOW)
    assert taken is not None
    assert taken.payload == payload


def test_a_unique_job_is_confirmed() -> None:
    taken = examine(job(b"[]", b',"custom":{"a":"%b","unique_for":60}' % (b"x" * MIB)), NOW)
    assert taken is not None
    assert taken.confirmed


@pytest.mark.parametrize(
    "payload",
    [
        job(b'["%b\\ud800"]' % (b"x" * MIB)),
        job(b'["%b\xff"]' % (b"x" * MIB)),
        job(b'["%b\xed\xa0\x80"]' % (b"x" * MIB)),
        job(b'["%b\\x"]' % (b"x" * MIB)),
        job(b'["%b\x01"]' % (b"x" * MIB)),
        job(b'["%b]' % (b"x" * MIB)),
        job(b'["%b",1e999]' % (b"x" * MIB)),
        job(b'["%b"]' % (b"x" * MIB), b',"jid":"a-second-jid"'),
        job(b'["%b"]' % (b"x" * MIB), b',"queue":"%b"' % (b"q" * 300)),
        job(b'["%b"]' % (b"x" * MIB), b',"at":"%b"' % (b"2" * 300)),
        b'{"jid":"%b","jobtype":"T","args":[' % (b"j" * MIB),
        job(b"[%b" % (b"[" * MIB) + b"]" * MIB + b"]"),
        job(b"[%b9]" % (b"9" * MIB)),
    ],
)
def test_what_faktory_may_refuse_or_change_is_left_to_it(payload: bytes) -> None:
    assert examine(payload, NOW) is None


@pytest.mark.parametrize(
    "unit", [b"[],", b'{"":0},', b"0,", b'"",', b'{"k":{}},', b'"' + b"x" * 200 + "😀".encode() + b'",', b'"\\\\",']
)
def test_nothing_costs_many_times_its_size(unit: bytes) -> None:
    many = unit * (8 * MIB // len(unit))
    payload, array = job(b"[%b0]" % many), b"[%b0]" % many
    custom = job(b"[]", b',"custom":{%b"z":0}' % (b'"k":%b' % unit * (8 * MIB // (len(unit) + 4))))
    tracemalloc.start()
    try:
        for text in (payload, custom):
            examine(text, NOW)
        examine_array(array, NOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(payload)


def test_a_long_string_is_copied_once() -> None:
    payload = job(b'["%b"]' % ("😀".encode() + b"x" * (8 * MIB)))
    tracemalloc.start()
    try:
        assert examine(payload, NOW) is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * len(payload)


def test_a_bulk_of_many_large_jobs_is_taken() -> None:
    one = job(b'["%b"]' % (b"a, b: c" * (MIB // 7)))
    taken = examine_array(b"[%b]" % b",".join([one] * 8), NOW)
    assert taken is not None
    assert len(taken) == 8


def test_up_to_the_bound_all_is_judged_as_ever() -> None:
    payload = job(b"[%b0]" % (b"[]," * (LARGE // 3 - 40)))
    assert len(payload) <= LARGE
    assert examine(payload, NOW) is not None
