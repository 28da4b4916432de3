"""What Faktory's error texts mean; each text was said by a running Faktory of 0.9, 1.0, 1.5, 1.6, 1.9 or 1.10."""

from __future__ import annotations

import pytest

from sidecar.upstream.refusals import Meaning, knows_pushb, may_be_applied, meaning, reply_line

TEXTS = {
    Meaning.FINAL: [
        "invalid JSON: json: cannot unmarshal string into Go struct field Job.retry of type int",
        "Invalid JSON: unexpected end of JSON input",
        "MALFORMED json: cannot unmarshal array into Go value of type client.Job",
        "jobs must have a reasonable jid parameter",
        "All jobs must have a reasonable jid parameter",
        "jobs must have a jobtype parameter",
        "All jobs must have an args parameter",
        "jobs cannot be reserved for more than one day",
        "Jobs cannot be reserved for more than one day",
        "invalid timestamp for 'at': \"i/o timeout\": parsing time",
        "Invalid timestamp for 'at': 'shutdown in progress'",
        'cannot get "a b" queue: queue names must match \\A[a-zA-Z0-9._-]+\\z',
        "queue names must match \\A[a-zA-Z0-9._-]+\\z",
        "NOTUNIQUE Job has already been enqueued",
    ],
    Meaning.TRANSIENT: [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "Unable to store queue name: OOM command not allowed when used memory > 'maxmemory'.",
        'cannot get "q" queue: unable to store queue name: OOM command not allowed',
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "READONLY You can't write against a read only replica.",
        "BUSY Redis is busy running a script.",
        'cannot get "q" queue: MASTERDOWN Link with MASTER is down',
        "NOAUTH Authentication required.",
        'cannot get "q" queue: read unix @->redis.sock: connection reset by peer',
        "dial unix redis.sock: connect: connection refused",
        "dial unix /tmp/redis.sock: connect: resource temporarily unavailable",
        "Unable to store queue name: dial unix /tmp/redis.sock: connect: no such file or directory",
        'cannot get "q" queue: unable to store queue name: write: broken pipe',
        "ERR max number of clients reached",
        "use of closed network connection",
        "redis: connection pool timeout",
        "EOF",
    ],
    Meaning.TIMED_OUT: [
        'cannot get "q" queue: unable to store queue name: context deadline exceeded',
        "read unix @->redis.sock: i/o timeout",
    ],
    Meaning.LINK: [
        "shutdown in progress",
        "Shutdown in progress",
        "SHUTDOWN Shutdown in progress",
        "too many connections: 2001",
        "Invalid password",
    ],
    Meaning.UNSUPPORTED: ["unknown command PUSHB", "Unknown command PUSHB"],
    Meaning.UNKNOWN: [
        "internal error",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "DENIED push denied",
        "BUSYBODY",
        "the moon is in the wrong phase",
        "",
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in TEXTS.items() for text in texts])
def test_a_text_means_what_the_server_means(kind: Meaning, text: str) -> None:
    assert meaning(text) is kind


@pytest.mark.parametrize(
    ("text", "applied"),
    [
        ("context deadline exceeded", True),
        ("EOF", True),
        ("write: broken pipe", True),
        ("internal error", True),
        ("dial unix redis.sock: connect: connection refused", False),
        ("OOM command not allowed", False),
        ("jobs must have a jobtype parameter", False),
    ],
)
def test_what_may_have_been_carried_out_all_the_same(text: str, applied: bool) -> None:
    assert may_be_applied(text) is applied


@pytest.mark.parametrize(
    ("version", "known"),
    [("1.10.0", True), ("1.6.0", True), ("2.0.0-rc1", True), ("1.5.5", False), ("0.9.0", False), ("", None)],
)
def test_the_version_tells_whether_there_is_pushb(version: str, known: bool | None) -> None:
    assert knows_pushb(version) is known


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("jobs must have a jobtype parameter", b"-ERR jobs must have a jobtype parameter\r\n"),
        ("NOTUNIQUE Job has already been enqueued", b"-NOTUNIQUE Job has already been enqueued\r\n"),
        ("OOM command not allowed", b"-ERR OOM command not allowed\r\n"),
        ("two\r\nlines", b"-ERR two  lines\r\n"),
    ],
)
def test_a_text_of_the_map_is_told_as_a_push_tells_it(text: str, line: bytes) -> None:
    assert reply_line(text) == line
