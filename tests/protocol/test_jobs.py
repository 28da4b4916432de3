"""Which jobs are certain, and what is appended to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.protocol import jobs
from sidecar.protocol.jobs import MAX_DEPTH, Job, examine, examine_array, stamp
from sidecar.protocol.names import folded
from tests.protocol import exact, generated

NOW = b"2026-11-23T19:00:00.123456Z"
STAMPED = {"created_at": NOW.decode(), "retry": 25}
JOB: dict[str, Any] = {"jid": "0123456789abcdef", "jobtype": "Add", "args": [1, 2]}
KNOWN = {
    *("jid", "jobtype", "args", "queue", "reserve_for", "at", "retry", "backtrace"),
    *("created_at", "enqueued_at", "custom", "failure"),
}
STYLES = [(",", ":"), (", ", ": "), (" , ", " : "), (",\t", "\r:\t")]


def with_members(text: str, style: tuple[str, str] = (",", ":")) -> bytes:
    """A plain job with further members, as text."""
    comma, colon = style
    members = comma.join(f'"{key}"{colon}{json.dumps(value)}' for key, value in JOB.items())
    return (f"{{{members}{comma}{text}}}" if text else f"{{{members}}}").encode()


def certain(payload: bytes) -> bool:
    return examine(payload, NOW) is not None


# Real producers

PRODUCERS = [
    # pyfaktory
    '{"jid": "4f0c9a61b3a34b3c9b5a6c8c2f6d2a11", "jobtype": "add", "args": [5, 4], "queue": "default", '
    '"reserve_for": 1800, "at": "", "retry": 25, "backtrace": 5, "custom": null}',
    # Go
    '{"retry":25,"jid":"lN0YqxQpvSsyLHqm","queue":"default","jobtype":"SomeJob",'
    '"created_at":"2026-11-23T19:00:00.123456789Z","args":[1,"hello"]}',
    # Ruby
    '{"jid":"ad3dfb6b3d1f4e0e9c3a","queue":"default","jobtype":"Some::Job","args":[{"a":"b:c"}],'
    '"created_at":"2026-11-23T19:00:00Z","retry":3,"custom":{"locale":"de"}}',
    # Node
    '{"jid":"f7c1a0fb","jobtype":"MyDoWorkJob","queue":"default","args":[{"id":3,"name":"x y"}],"priority":5,'
    '"retry":25,"reserve_for":1800,"custom":{}}',
    # Rust
    '{"jid":"0U7wZkcbzPSgTTyy","queue":"default","jobtype":"foobar","args":["z"],'
    '"created_at":"2026-11-23T19:00:00.1Z","reserve_for":600,"retry":25,"backtrace":0}',
]


@pytest.mark.parametrize("text", PRODUCERS)
def test_jobs_of_real_producers_are_certain(text: str) -> None:
    job = examine(text.encode(), NOW)
    assert job is not None
    assert job.jid == json.loads(text)["jid"]
    assert not job.confirmed
    assert job.payload.startswith(text.encode()[:-1])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        '"queue":"default"',
        '"queue":""',
        '"queue":null',
        '"queue":"A-z.0_9"',
        '"at":""',
        '"at":null',
        '"at":"2026-11-23T19:00:00Z"',
        '"at":"2024-02-29T23:59:59.123456789-23:59"',
        '"reserve_for":86400',
        '"reserve_for":-1',
        '"reserve_for":-0',
        '"reserve_for":-9223372036854775808',
        '"reserve_for":null,"backtrace":null',
        '"retry":9223372036854775807,"backtrace":-9223372036854775808',
        '"created_at":"yesterday","enqueued_at":"tomorrow"',
        '"created_at":"\\u0000"',
        '"enqueued_at":""',
        '"enqueued_at":null',
        '"custom":{}',
        '"custom":null',
        '"custom":{"a":{"a":{"a":[{"jid":"x","JID":"y"}]}}}',
        '"custom":{"a":1,"a":2}',
        '"failure":null',
        '"priority":5',
        '"priority":{"jid":"x"},"class":[{"args":1}],"":null',
        '"priority":1e999',
        '"f\u00e9e":"\u00e9","\ufb06art":1,"j\u0131d":2',
        '"x:y":":","a\\"b":"\\":","d":" : ","e":"{[[["',
        '"big":18446744073709551616,"n":1e-999',
    ],
)
def test_certain(text: str, style: tuple[str, str]) -> None:
    assert certain(with_members(text, style))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "text",
    [
        *('"jid":"0123456789abcdef"', '"\\u006aid":"0123456789abcdef"', '"args":[1,2]', '"jobtype":"Add"'),
        *(
            '"priority":1,"priority":1',
            '"custom":{"unique_for":5},"custom":{"a":1}',
            '"x":{"a":1,"b":2},"x":0',
            '"":1,"":2',
        ),
        *(
            '"JID":"x"',
            '"Queue":"q"',
            '"QUEUE":null',
            '"ARG\u017f":[]',
            '"bac\u212atrace":1',
            '"\\u004aid":"x"',
            '"re\\u017ferve_for":1',
        ),
        *(
            '"queue":"a b"',
            '"queue":"\u00e4"',
            '"queue":"q\\n"',
            '"queue":0',
            '"queue":false',
            '"queue":[]',
            '"queue":"*"',
        ),
        f'"queue":"{"x" * 300}"',
        *('"at":"tomorrow"', '"at":" "', '"at":0', '"at":false', '"at":[]', '"at":1795460400', '"at":"2026-11-23"'),
        *(
            '"at":"2026-11-23 19:00:00Z"',
            '"at":"2026-11-23T19:00:00"',
            '"at":"2026-11-23t19:00:00z"',
            '"at":"2026-02-29T00:00:00Z"',
        ),
        *(
            '"at":"2026-11-23T24:00:00Z"',
            '"at":"2026-11-23T23:59:60Z"',
            '"at":"2026-11-23T19:00:00+24:00"',
            '"at":"2026-00-23T19:00:00Z"',
        ),
        *(
            '"at":"2026-11-23T19:00:00Z "',
            '"at":"2026-11-23T19:00:00Z\\n"',
            '"at":"\uff12026-11-23T19:00:00Z"',
            '"at":"0000-01-01T00:00:00Z"',
        ),
        *(
            '"reserve_for":86401',
            '"reserve_for":60.0',
            '"reserve_for":6e1',
            '"reserve_for":"60"',
            '"reserve_for":true',
            '"reserve_for":-9223372036854775809',
        ),
        *(
            '"retry":25.0',
            '"retry":-0.0',
            '"retry":1E0',
            '"retry":"25"',
            '"retry":false',
            '"retry":9223372036854775808',
            '"retry":[]',
        ),
        *('"backtrace":0.0', '"backtrace":1e1', '"backtrace":-9223372036854775809', '"backtrace":{}'),
        *('"created_at":0', '"created_at":false', '"created_at":[]', '"enqueued_at":0', '"enqueued_at":{}'),
        *(
            '"custom":[]',
            '"custom":"x"',
            '"custom":false',
            '"custom":0',
            '"custom":""',
            '"failure":{}',
            '"failure":false',
            '"failure":""',
        ),
        *(
            '"custom":{"a":1e999}',
            '"custom":{"a":-1e309}',
            '"custom":{"a":NaN}',
            '"custom":{"a":01}',
            '"custom":{"a":"\\ud800"}',
        ),
        *(
            '"x":NaN',
            '"x":Infinity',
            '"x":01',
            '"x":.5',
            "\"x\":'y'",
            '"x":"\\x"',
            '"x":"\x01"',
            '"x":"a\tb"',
            "x:1",
            '"x"',
            '"x":1,',
        ),
        f'"custom":{{"a":{"9" * 309}}}',
        f'"custom":{{"a":-{"9" * 400}}}',
        f'"x":{"[" * 101}{"]" * 101}',
        f'"x":{"[" * 100_000}{"]" * 100_000}',
    ],
)
def test_in_doubt(text: str, style: tuple[str, str]) -> None:
    assert not certain(with_members(text, style))


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b" ", b"{}", b"[]", b"null", b"5", b'"job"', b"{", b"\0", b"[" * 100_000),
        *(
            b'{"jid":"1234567","jobtype":"a","args":[]}',
            b'{"jid":12345678,"jobtype":"a","args":[]}',
            b'{"jobtype":"a","args":[]}',
        ),
        *(
            b'{"jid":"12345678","jobtype":"","args":[]}',
            b'{"jid":"12345678","jobtype":null,"args":[]}',
            b'{"jid":"12345678","args":[]}',
        ),
        *(
            b'{"jid":"12345678","jobtype":"a","args":{}}',
            b'{"jid":"12345678","jobtype":"a","args":null}',
            b'{"jid":"12345678","jobtype":"a"}',
        ),
        b'{"jid":"\\ud80012345678","jobtype":"a","args":[]}',
        b'{"jid":"12345678","jobtype":"a","args":["\xff"]}',
        b'{"jid":"12345678","jobtype":"a","args":["\xed\xa0\x80"]}',
        b'{"jid":"12345678","jobtype":"a","args":[],"x":"\xff"}',
        b'{"jid":"12345678","jobtype":"a","args":[],"x":"\xff:"}',
        b'{"jid":"12345678","jobtype":"a","args":[],"\xff":1}',
        b'{"jid":"12345678","jobtype":"a","args":[]}x',
        b'{"jid":"12345678","jobtype":"a","args":[]}{}',
        b'{"jid":"12345678","jobtype":"a","args":[]}\0',
        b'\xef\xbb\xbf{"jid":"12345678","jobtype":"a","args":[]}',
        b'{"jid":"12345678",\n"jobtype":"a","args":[]}',
        b'{"jid":"12345678","jobtype":"a","args":[]}\n',
        b'[{"jid":"12345678","jobtype":"a","args":[]}]',
    ],
)
def test_no_certain_job_at_all(payload: bytes) -> None:
    assert not certain(payload)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"":', "}]")])
def test_depth(opening: str, closing: str) -> None:
    for depth in range(90, 110, len(closing)):
        count = depth // len(closing)
        value = opening * count + '"[[[\\"{"' + closing * count
        payload = with_members(f'"x":{value}')
        assert exact.depth(payload) == depth + 1
        assert certain(payload) == (depth + 1 <= MAX_DEPTH)


def test_many_brackets_are_not_deep() -> None:
    assert certain(with_members('"custom":{"a":[' + ",".join(["[{}]"] * 500) + "]}"))
    assert certain(with_members('"custom":{"a":"' + "[" * 500 + '"}'))


@pytest.mark.parametrize("at", range(0, 70, 3))
def test_a_long_integer_is_found_wherever_it_starts(at: int) -> None:
    before = "x" * at
    assert certain(with_members(f'"custom":{{"{before}":{"9" * 308}}}'))
    assert not certain(with_members(f'"custom":{{"{before}":{"9" * 309}}}'))
    assert (
        certain(with_members(f'"custom":{{"{before}":0.{"9" * 5000}}}')) is False
    )  # a fraction: in doubt, no need to be
    assert certain(with_members(f'"custom":{{"{before}":"{"9x" * 5000}"}}'))


# The stamps


@pytest.mark.parametrize("end", ["", " ", "\t", "\r", "  \r"])
@pytest.mark.parametrize(
    ("text", "appended"),
    [
        ("", ',"created_at":"2026-11-23T19:00:00.123456Z","retry":25'),
        ('"created_at":null,"retry":null', ',"created_at":"2026-11-23T19:00:00.123456Z","retry":25'),
        ('"created_at":"","retry":0', ',"created_at":"2026-11-23T19:00:00.123456Z"'),
        ('"created_at":"x"', ',"retry":25'),
        ('"created_at":"x","retry":null', ',"retry":25'),
        ('"retry":-1', ',"created_at":"2026-11-23T19:00:00.123456Z"'),
        ('"created_at":"x","retry":25', ""),
        ('"x":"}"', ',"created_at":"2026-11-23T19:00:00.123456Z","retry":25'),
    ],
)
def test_what_is_wanting_is_appended_and_nothing_else_changed(text: str, appended: str, end: str) -> None:
    payload = with_members(text) + end.encode()
    job = examine(payload, NOW)
    assert job is not None
    cut = payload.rindex(b"}")
    assert job.payload == payload[:cut] + appended.encode() + payload[cut:]
    merged = json.loads(payload) | json.loads(job.payload)
    assert merged["created_at"]
    assert merged["retry"] is not None


@given(st.integers(0, 10), st.data())
def test_generated_jobs_keep_every_byte(seed: int, data: st.DataObject) -> None:
    written = list(generated.jobs(seed, 50))
    payload = data.draw(st.sampled_from(written)).payload
    job = examine(payload, NOW)
    if job is None:
        return
    cut = payload.rindex(b"}")
    assert job.payload.startswith(payload[:cut])
    assert job.payload.endswith(payload[cut:])
    assert b"\n" not in job.payload


@pytest.mark.parametrize(
    ("custom", "confirmed"),
    [
        *(
            ("null", False),
            ("{}", False),
            ('{"locale":"de"}', False),
            ('{"unique_for":60}', True),
            ('{"bid":"b-1"}', True),
        ),
        *(('{"unique_for":null}', True), ('{"\\u0062id":"b-1"}', True), ('{"a":1,"bid":0}', True)),
        *(
            ('{"BID":"b-1"}', False),
            ('{"Unique_For":60}', False),
            ('{"unique_until":"start"}', False),
            ('{"a":{"bid":1}}', False),
        ),
    ],
)
def test_confirmed(custom: str, confirmed: bool) -> None:
    job = examine(with_members(f'"custom":{custom}'), NOW)
    assert job is not None
    assert job.confirmed is confirmed


@given(st.floats(0, 4e9, allow_nan=False))
def test_a_stamp_is_the_moment_in_utc(now: float) -> None:
    moment = datetime.fromisoformat(stamp(now).decode())
    assert moment.tzinfo == UTC
    assert abs(moment.timestamp() - now) < 2e-6
    assert len(stamp(now)) == len("2026-11-23T19:00:00.123456Z")


def test_stamps() -> None:
    assert stamp(0) == b"1970-01-01T00:00:00.000000Z"
    assert stamp(1795460400.5) == b"2026-11-23T19:00:00.500000Z"
    assert stamp(1795460400.9999995) == b"2026-11-23T19:00:00.999999Z"
    assert certain(with_members(f'"at":"{stamp(1795460400.25).decode()}"'))


# Arrays


def test_an_array_of_jobs() -> None:
    first, second = with_members(""), with_members('"retry":1,"custom":{"bid":"b"}', (", ", ": "))
    found = examine_array(b" [" + first + b" , " + second + b"]\t", NOW)
    assert found == [examine(first, NOW), examine(second, NOW)]
    assert [job.confirmed for job in found or []] == [False, True]


def test_an_empty_array() -> None:
    assert examine_array(b"[]", NOW) == []
    assert examine_array(b" [ ] ", NOW) == []


def test_the_same_jid_twice_is_two_jobs() -> None:
    job = with_members("")
    assert examine_array(b"[" + job + b"," + job + b"]", NOW) == [examine(job, NOW)] * 2


@pytest.mark.parametrize(
    "element", [b"null", b"[]", b"1", b"{}", b'"x"', with_members('"JID":"x"'), with_members('"retry":1.0')]
)
def test_one_doubtful_element_makes_the_array_doubtful(element: bytes) -> None:
    job = with_members("")
    assert examine_array(b"[" + b",".join([job, element, job]) + b"]", NOW) is None


@pytest.mark.parametrize(
    "array", [b"", b"null", b"{}", b"5", b"[", b"[,]", b"[]x", b"[] []", b"\xef\xbb\xbf[]", b"[" * 100_000]
)
def test_no_array(array: bytes) -> None:
    assert examine_array(array, NOW) is None


@pytest.mark.parametrize("array", [b"[%b,]", b"[%b %b]", b"[%b,,%b]", b"[%b", b"[%b]]", b"%b"])
def test_a_broken_array(array: bytes) -> None:
    assert examine_array(array.replace(b"%b", with_members("")), NOW) is None


def test_a_new_line_between_jobs_is_none_within_them() -> None:
    job = with_members("")
    assert examine_array(b"[\n" + job + b"\n,\n" + job + b"\n]", NOW) == [examine(job, NOW)] * 2
    assert examine_array(b"[" + job.replace(b",", b",\n") + b"]", NOW) is None


# The fast proofs against a slow scanner


def plain_keys(payload: bytes) -> bool:
    """By the grammar: no key repeats, none is another spelling of a known one."""
    keys = exact.keys(payload)
    return len(set(keys)) == len(keys) and not any(key not in KNOWN and folded(key) in KNOWN for key in keys)


tricky = st.sampled_from(['":', '"', ":", " :", "\\", "{", "}", "[", ",", '{"a":1}', "\t", "é", "a", "jid", ""])
strings = st.lists(tricky, max_size=4).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=6,
)
key_names = strings | st.sampled_from(sorted(KNOWN)) | st.sampled_from(["JID", "priority", "cu\u017ftom", "Args"])
spaces = st.sampled_from(["", "", "", " ", "\t", "\r", "  "])
typed = {"queue": "q", "retry": 3, "custom": {"a": {":": '":'}}, "created_at": "10:30", "at": "", "backtrace": 1}


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A job that is right in all but its keys: some repeat, some resemble known ones."""
    wanted = [*JOB.items(), *draw(st.lists(st.sampled_from(list(typed.items())), max_size=3))]
    wanted += draw(st.lists(st.tuples(key_names.filter(lambda key: key not in KNOWN), values), max_size=3))
    if draw(st.booleans()):
        wanted.append(draw(st.sampled_from(wanted)))
    if draw(st.booleans()):
        wanted[2] = ("args", draw(st.lists(values, max_size=3)))
    comma = f"{draw(spaces)},{draw(spaces)}"
    ascii_only = draw(st.booleans())
    members = []
    for key, value in draw(st.permutations(wanted)):
        text = json.dumps(value, ensure_ascii=ascii_only, separators=draw(st.sampled_from(STYLES)))
        members.append(f"{json.dumps(key, ensure_ascii=ascii_only)}{draw(spaces)}:{draw(spaces)}{text}")
    return ("{" + comma.join(members) + "}").encode()


@settings(max_examples=400, deadline=None)
@given(objects())
def test_keys_by_count_are_keys_by_grammar(payload: bytes) -> None:
    assert certain(payload) == plain_keys(payload)


@pytest.mark.parametrize("space", [" ", "\t", "\r", "  ", "\t "])
@pytest.mark.parametrize("repeated", ['"jobtype":"Sub"', '"x":1,"x":2', '"JID":1'])
def test_one_space_before_a_colon_hides_no_other_key(space: str, repeated: str) -> None:
    payload = with_members(repeated)
    assert not certain(payload.replace(b'"jid":', f'"jid"{space}:'.encode()))
    assert not certain(payload.replace(b'"args":', f'"args"{space}:'.encode()))


@pytest.mark.parametrize("seed", range(3))
def test_generated_keys_by_count_are_keys_by_grammar(seed: int) -> None:
    found = [written.payload for written in generated.jobs(1000 + seed, 1000)]
    assert [payload for payload in found if certain(payload) and not plain_keys(payload)] == []


@given(objects())
def test_depth_is_the_depth_by_grammar(payload: bytes) -> None:
    many = payload[:-1] + b',"x":[' + b",".join([payload] * 20) + b"]}"
    assert jobs._depth(many) == exact.depth(many) or jobs._depth(many) <= MAX_DEPTH


def test_a_job_tells_what_it_is() -> None:
    assert Job("12345678", b"{}").confirmed is False
