"""Commands made up from a seed: valid, odd and broken ones, the same on every machine.

Jobs are written as text, member by member, so that repeated keys, strange spellings, white space, numbers
beyond any type and bytes that are no UTF-8 are among them. The same seed and count always give the same commands;
jids differ within a seed and between seeds unless a repetition is the point of a command.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

QUEUES: Final = ("default", "gen.a", "gen_b", "gen-c", "G1")
"""The queues that are named; a damaged name makes up others: Redis has them as `q:NAME`."""

Members = list[tuple[str, str]]
"""A job as written: texts of the keys and of the values, JSON both, repetitions allowed."""

STRINGS = [
    *("", "x", "hello", "a b", "日本語", "😀", "é\u0301", "\x7f", "\u2028", "</script>&", '"', "\\", "\t\r", "\0"),
    *("a:b", "10:30", '":', '": "', '{"jid":"12345678"}', "a : b", " :", "[[[[", "}}", ",", "null", "1e999"),
]
NUMBERS = [
    *("0", "-0", "1", "-1", "25", "2147483648", "9007199254740993", "9223372036854775807", "9223372036854775808"),
    *("-9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" * 40, "9" * 308, "1" + "0" * 308),
    *("1.0", "1.5", "-0.0", "1e2", "1E-7", "1e308", "1.7976931348623157e308", "1e-400", "0.1", "0." + "0" * 320 + "1"),
]
OVERFLOWS = ["1e309", "-1e999", "9" * 309, "-" + "9" * 310, "1" * 400, "1.8e308", "9" * 5000]
NO_NUMBERS = ["NaN", "Infinity", "01", "1.", ".5", "+1", "0x10", "1e", "--1", "1_000"]
TIMES = [
    *("", "2020-01-02T03:04:05Z", "2037-01-02T03:04:05Z", "2037-12-31T23:59:59.123456789Z", "2036-02-29T00:00:00Z"),
    *("2037-01-02T03:04:05+02:00", "2037-01-02T03:04:05.5-11:30", "2037-06-01T00:00:00+23:59", "1970-01-01T00:00:00Z"),
]
ODD_TIMES = [
    *("tomorrow", " ", "2037-01-02", "2037-01-02 03:04:05Z", "2037-01-02T03:04:05", "2037-01-02t03:04:05z", "0"),
    *("2037-02-29T00:00:00Z", "2037-13-01T00:00:00Z", "2037-00-10T00:00:00Z", "2037-04-31T00:00:00Z"),
    *("2037-01-02T24:00:00Z", "2037-01-02T23:60:00Z", "2037-01-02T23:59:60Z", "2037-01-02T03:04:05+24:00"),
    *("2037-01-02T03:04:05+02:60", "2037-01-02T03:04:05,5Z", "2037-01-02T03:04:05.Z", "2037-01-02T3:04:05Z"),
    *(
        "2037-01-02T03:04:05.1234567890123Z",
        "2037-01-02T03:04:05+0200",
        "2037-01-02T03:04:05+02",
        "２037-01-02T03:04:05Z",
    ),
    *("0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999-23:59", "10000-01-01T00:00:00Z", "2037-01-02T03:04:05Z "),
]
ODD_QUEUES = ["a b", "ä", "q/1", "*", "q\n", "a:b", "a\u0000", "x" * 300, "“q”", "q,r", "\ud83d\ude00"]
WRONG = ["true", "false", "{}", "[]", '"text"', "12", "1.5", '{"a":1}', "[1]", '""', "null"]
"""One value of every type, for the fields that take another."""

LOOKALIKES = [
    *("JID", "Jid", "jobType", "ARGS", "arg\u017f", "Queue", "QUEUE", "Reserve_For", "re\u017ferve_for", "AT", "At"),
    *("Retry", "BACKTRACE", "bac\u212atrace", "Created_At", "enqueued_At", "Custom", "cu\u017ftom", "Failure"),
]
FOREIGN = [
    *(
        "priority",
        "jidx",
        "_jid",
        "arg",
        "retries",
        "class",
        "ﬆart",
        "ARGſX",
        "",
        "é",
        "日本",
        "a.b",
        "j\u0131d",
        "at ",
    ),
    *("description", "Reserve-For", "x:y", 'q"', "ſ", "K"),
]
FIELDS = [
    *("jid", "jobtype", "args", "queue", "reserve_for", "at", "retry", "backtrace"),
    *("created_at", "enqueued_at", "custom", "failure"),
]


@dataclass(frozen=True, slots=True)
class Written:
    """A job as text.

    Args:
        payload: what follows `PUSH `.
        plain: an ordinary job, of a kind that real producers send: it must be taken without asking upstream.
    """

    payload: bytes
    plain: bool


def commands(seed: int, n: int) -> Iterator[bytes]:
    """`n` command lines without their terminators: about three quarters `PUSH`, the rest `PUSHB` and others.

    None of them blocks, ends the connection, takes jobs away or has a reply that depends on the time: no FETCH, END,
    FLUSH, INFO, no QUEUE or MUTATE that changes something. What a job without `retry` gets is not sure when it goes to
    Faktory by `PUSH`: the server's default changes with every `PUSH` that has one.
    """
    rng = random.Random(seed)
    jobs = _Jobs(rng, seed)
    for _ in range(n):
        match rng.choices(("push", "bulk", "other"), (75, 15, 10))[0]:
            case "push":
                space = rng.choices((" ", "  ", " \t"), (97, 2, 1))[0]
                yield b"PUSH" + space.encode() + jobs.make().payload
            case "bulk":
                yield _bulk(rng, jobs)
            case _:
                yield _other(rng, jobs)


def jobs(seed: int, n: int) -> Iterator[Written]:
    """`n` jobs, the payloads of `PUSH`."""
    maker = _Jobs(random.Random(seed), seed)
    for _ in range(n):
        yield maker.make()


def _bulk(rng: random.Random, jobs: _Jobs) -> bytes:
    kind = rng.choices(("plain", "mixed", "twice", "empty", "broken"), (50, 30, 5, 5, 10))[0]
    match kind:
        case "plain":
            elements = [jobs.plain().payload for _ in range(rng.randint(1, 20))]
        case "mixed":
            elements = [jobs.make().payload for _ in range(rng.randint(1, 8))]
        case "twice":
            elements = [jobs.plain().payload] * 2
        case "empty":
            return rng.choice([b"PUSHB []", b"PUSHB [ ]", b"PUSHB null"])
        case _:
            job = jobs.plain().payload
            whole = b"[" + job + b"]"
            odd = [
                job,
                whole[:-1],
                b"[" + job + b",]",
                whole + b"]",
                b"[null]",
                b"[[]]",
                b"[1]",
                b"{}",
                b"",
                b"[" + job + b",5]",
            ]
            return b"PUSHB " + rng.choice(odd)
    return b"PUSHB [" + rng.choice([b",", b", ", b" , "]).join(elements) + b"]"


def _other(rng: random.Random, jobs: _Jobs) -> bytes:
    job = jobs.plain().payload
    return rng.choice(
        [
            *(b"PUSH", b"PUSHB", b"PUSH ", b"PUSHB ", b"PUSH\t" + job, b"push " + job, b"Push " + job, b"PUSHBB []"),
            *(
                b"",
                b" ",
                b" PUSH " + job,
                b"NOPE",
                b"NOPE {}",
                b"GET / HTTP/1.1",
                b"\xff\xfe",
                b"PUSH\0",
                b"PUSHB" + job,
            ),
            *(b'ACK {"jid":"no-such-job"}', b"ACK {}", b"ACK nonsense", b'ACK {"jid":5}', b"ACK"),
            *(b'FAIL {"jid":"no-such-job"}', b"FAIL {}", b"FAIL [", b"FAIL"),
            *(b'BEAT {"wid":"nobody-here"}', b"BEAT {}", b"BEAT x", b"BEAT"),
            *(b"TRACK GET no-such-job", b"BATCH NEW {}", b"BATCH OPEN b-1", b"QUEUE NOPE q", b"QUEUE LATENCY *"),
            *(b"MUTATE {}", b"MUTATE nonsense", b'MUTATE {"cmd":"nope","target":"retries"}'),
        ]
    )


class _Jobs:
    """Makes jobs; one for each seed, so that its jids don't repeat."""

    def __init__(self, rng: random.Random, seed: int) -> None:
        self._rng = rng
        self._seed = seed
        self._made = 0

    def make(self) -> Written:
        """A job of any kind."""
        if self._rng.random() < 0.4:
            return self.plain()
        members = self._members()
        for _ in range(self._rng.randint(1, 2)):
            change: Callable[[Members], None] = self._rng.choice(
                [
                    self._field,
                    self._field,
                    self._lookalike,
                    self._foreign,
                    self._repeat,
                    self._drop,
                    self._number,
                    self._deep,
                ]
            )
            change(members)
        payload = self._write(members)
        if self._rng.random() < 0.1:
            payload = self._damage(payload)
        return Written(payload, plain=False)

    def plain(self) -> Written:
        """A job as real producers write it, in one of their styles."""
        members = self._members()
        if self._rng.random() < 0.1:
            members.append(('"priority"', str(self._rng.randint(1, 9))))
        separators = self._rng.choice([(", ", ": "), (",", ":")])
        return Written(_object(members, *separators).encode(), plain=True)

    def _members(self) -> Members:
        rng = self._rng
        self._made += 1
        job: dict[str, object] = {
            "jid": f"gen-{self._seed}-{self._made:06}",
            "jobtype": rng.choice(["Add", "A::B", "a.b"]),
        }
        job["args"] = self._args()
        if rng.random() < 0.8:
            job["queue"] = rng.choice([*QUEUES, "", None])
        if rng.random() < 0.5:
            job["reserve_for"] = rng.choice([60, 1800, 86400, 0, -1, None])
        if rng.random() < 0.5:
            job["at"] = rng.choice([*TIMES, None])
        if rng.random() < 0.5:
            job["retry"] = rng.choice([25, 0, -1, 3, 2**63 - 1, -(2**63), None])
        if rng.random() < 0.5:
            job["backtrace"] = rng.choice([0, 5, 2**31, None])
        if rng.random() < 0.5:
            job["created_at"] = rng.choice(["2026-01-02T03:04:05.678Z", "", None, "yesterday"])
        if rng.random() < 0.1:
            job["enqueued_at"] = rng.choice(["2026-01-02T03:04:05.678Z", "", None, "x"])
        if rng.random() < 0.4:
            job["custom"] = rng.choice([None, {}, {"locale": "de"}, {"unique_for": 60}, {"a": {"b": [{"c": 1}]}}])
        if rng.random() < 0.2:
            job["failure"] = None
        escape = rng.random() < 0.5
        members = [(json.dumps(key), json.dumps(value, ensure_ascii=escape)) for key, value in job.items()]
        if rng.random() < 0.3:
            rng.shuffle(members)
        return members

    def _args(self) -> list[object]:
        rng = self._rng
        simple: list[object] = [*STRINGS, 1, 2.5, -7, True, None, 10**15]
        args = [rng.choice(simple) for _ in range(rng.choice([0, 1, 2, 3, 5]))]
        if rng.random() < 0.3:
            args.append({str(rng.choice(STRINGS)): rng.choice(simple), "user": {"id": 1, "tags": ["a", {}]}})
        if rng.random() < 0.05:
            args.append("x" * rng.choice([300, 3000, 70_000]))
        return args

    def _field(self, members: Members) -> None:
        """A known field gets a value of another type or an odd one of its own."""
        rng = self._rng
        name = rng.choice(FIELDS)
        odd = {
            "jid": [json.dumps(jid) for jid in ("", "1234567", "日本語"[: self._made % 3])]
            + [
                f'"{escape}{self._seed}-{self._made:06}"'
                for escape in ("\\u0067", "\\ud83d\\ude00", "\\ud800", "\\u0000")
            ],
            "jobtype": ['""', '"\\u0000"', '"\\ud800"', json.dumps("日" * 100)],
            "args": ["[[]]", "[{}]", '[{"a":1,"a":2}]', '["\\ud800"]', '[{"\\ud800":1,"\\ud801":2}]', "[ ]"],
            "queue": [json.dumps(queue) for queue in ODD_QUEUES],
            "at": [json.dumps(time) for time in ODD_TIMES],
            "reserve_for": [*NUMBERS, "86400", "86401", "86400.0", *NO_NUMBERS],
            "retry": [*NUMBERS, *NO_NUMBERS, *OVERFLOWS],
            "backtrace": [*NUMBERS, *NO_NUMBERS, *OVERFLOWS],
            "created_at": ['"\\ud800"', '" "', '"\\u0000"'],
            "enqueued_at": ['"\\ud800"', '" "'],
            "custom": [
                '{"unique_for":null}',
                '{"BID":"x"}',
                '{"bid":"b-1"}',
                '{"a":1,"a":{"b":2}}',
                '{"":0}',
                '{"a":"\\ud800"}',
            ],
            "failure": ['{"message":"x"}', '{"retry_count":1}', '{"failed_at":5}', "{}"],
        }[name]
        _put(members, name, rng.choice(rng.choice([WRONG, odd, odd])))

    def _lookalike(self, members: Members) -> None:
        """Another spelling of a known key, beside it or in its place."""
        name = self._rng.choice(LOOKALIKES)
        value = self._rng.choice([*WRONG, '"2037-01-02T03:04:05Z"', '"default"', "[]"])
        if self._rng.random() < 0.3:
            index = self._rng.randrange(len(members))
            members[index] = (json.dumps(name), members[index][1])
        else:
            members.insert(self._rng.randint(0, len(members)), (json.dumps(name, ensure_ascii=False), value))

    def _foreign(self, members: Members) -> None:
        """A key that Faktory doesn't know, with any value."""
        value = self._rng.choice(
            [*WRONG, *NUMBERS, *OVERFLOWS, '"\\ud800"', '{"jid":"x"}', '"a : b"', json.dumps('":')]
        )
        members.insert(self._rng.randint(0, len(members)), (json.dumps(self._rng.choice(FOREIGN)), value))

    def _repeat(self, members: Members) -> None:
        """A key twice, the second time perhaps with escapes in it or another value."""
        rng = self._rng
        key, value = rng.choice(members)
        if rng.random() < 0.3 and key > '"a':
            key = f'"\\u{ord(key[1]):04x}{key[2:]}'
        members.insert(rng.randint(0, len(members)), (key, rng.choice([value, value, *WRONG])))

    def _drop(self, members: Members) -> None:
        del members[self._rng.randrange(len(members))]

    def _number(self, members: Members) -> None:
        """A number at the edge of what a type holds, within args or custom."""
        number = self._rng.choice([*NUMBERS, *OVERFLOWS, *NO_NUMBERS])
        if self._rng.random() < 0.5:
            _put(members, "args", f"[{number}]")
        else:
            _put(members, "custom", f'{{"n":[{number}]}}')

    def _deep(self, members: Members) -> None:
        depth = self._rng.choice([10, 50, 97, 98, 99, 100, 150, 900, 1100, 9997, 9998, 9999, 10_000, 10_001, 12_000])
        opening, closing = self._rng.choice([("[", "]"), ('{"a":', "}"), ('[{"":', "}]")])
        depth //= 2 if len(closing) == 2 else 1
        _put(members, "args", "[" + opening * depth + "1" + closing * depth + "]")

    def _write(self, members: Members) -> bytes:
        """As text, with white space where it may stand."""
        rng = self._rng
        colon = rng.choices((":", ": ", " : ", "\t:", ": \r"), (45, 40, 5, 5, 5))[0]
        comma = rng.choices((",", ", ", " , ", ",\t"), (45, 45, 5, 5))[0]
        text = _object(members, comma, colon)
        outside = rng.choices(("{}", " {}", "{} ", "\t{}\r\r", "\ufeff{}"), (90, 3, 3, 2, 2))[0]
        return outside.replace("{}", text).encode()

    def _damage(self, payload: bytes) -> bytes:
        """Bytes lost, changed, added."""
        rng = self._rng
        at = rng.randrange(len(payload) + 1)
        match rng.randrange(5):
            case 0:
                return payload[:at]
            case 1:
                return payload[:at] + payload[at + 1 :]
            case 2:
                odd = [
                    b"\xff",
                    b"\xc0\x80",
                    b"\xed\xa0\x80",
                    b"\xe6\x97",
                    b"\0",
                    b"\x01",
                    b"\t",
                    b'"',
                    b"\\",
                    b"{",
                    b"]",
                    b",",
                    b":",
                ]
                return payload[:at] + rng.choice(odd) + payload[at:]
            case 3:
                return payload + rng.choice([b"}", b"{}", b"x", b",", b"\0", b" 1", b"//"])
            case _:
                return payload.replace(b'"', b"'") if rng.random() < 0.3 else payload.replace(b",", b",,", 1)


def _object(members: Members, comma: str, colon: str) -> str:
    return "{" + comma.join(f"{key}{colon}{value}" for key, value in members) + "}"


def _put(members: Members, name: str, value: str) -> None:
    """Give a field a value, whether the job has that field or not."""
    key = json.dumps(name)
    for index, (present, _) in enumerate(members):
        if present == key:
            members[index] = (key, value)
            return
    members.append((key, value))
