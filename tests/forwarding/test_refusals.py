"""What Faktory's error texts mean; each text was seen from Faktory 1.10.0 or stands in its source."""

from __future__ import annotations

import pytest

from sidecar.upstream.refusals import Meaning, meaning, reply_line

TEXTS = {
    Meaning.FINAL: [
        "invalid JSON: json: cannot unmarshal string into Go value of type client.Job",
        "jobs must have a reasonable jid parameter",
        "jobs must have a jobtype parameter",
        "jobs must have an args parameter",
        "jobs cannot be reserved for more than one day",
        "invalid timestamp for 'at': \"tomorrow\": parsing time",
        'cannot get "a b" queue: queue names must match [a-zA-Z0-9._-]+',
        "NOTUNIQUE Job has already been enqueued",
    ],
    Meaning.TRANSIENT: [
        "OOM command not allowed when used memory > 'maxmemory'.",
        'cannot get "q" queue: OOM command not allowed',
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "READONLY You can't write against a read only replica.",
        "BUSY Redis is busy running a script.",
        "NOREPLICAS Not enough good replicas to write.",
        'cannot get "q" queue: MASTERDOWN Link with MASTER is down',
        "NOAUTH Authentication required.",
        'cannot get "q" queue: read unix @->redis.sock: connection reset by peer',
        "dial unix redis.sock: connect: connection refused",
        "redis: connection pool timeout",
        "EOF",
    ],
    Meaning.TIMED_OUT: [
        'cannot get "q" queue: unable to store queue name: context deadline exceeded',
        "read unix @->redis.sock: i/o timeout",
    ],
    Meaning.LINK: ["shutdown in progress", "too many connections: 2001", "Invalid password"],
    Meaning.UNSUPPORTED: ["unknown command PUSHB"],
    Meaning.UNKNOWN: ["internal error", "BUSYBODY", "the moon is in the wrong phase", ""],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in TEXTS.items() for text in texts])
def test_a_text_means_what_the_server_means(kind: Meaning, text: str) -> None:
    assert meaning(text) is kind


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
