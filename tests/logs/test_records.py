"""The two forms of a record."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from sidecar import logs
from sidecar.config import LogFormat, LogLevel, Secret


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def console(level: LogLevel = LogLevel.INFO) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, LogFormat.CONSOLE, stream)
    return stream


LINES = [
    ({"message": "Link up: Faktory 1.10.0, 48.7 ms"}, "INFO Link up: Faktory 1.10.0, 48.7 ms"),
    ({"message": "Auto-flushing batch of 100 jobs (batch full)", "jobs": 100, "reason": "batch full"},
     "INFO Auto-flushing batch of 100 jobs (batch full)"),
    ({"message": "Enqueued 248 more batches, 24,800 jobs", "batches": 248, "jobs": 24800},
     "INFO Enqueued 248 more batches, 24,800 jobs"),
    ({"message": "batch of 100 jobs", "jobs": 10}, "INFO batch of 100 jobs jobs=10"),
    ({"message": "Faktory 1.10.0", "depth": 1}, "INFO Faktory 1.10.0 depth=1"),
    ({"message": "done", "ok": True}, "INFO done ok=True"),
    ({"message": "m", "host": "a b", "empty": ""}, 'INFO m host="a b" empty=""'),
    ({"message": "m", "quote": 'a"=b'}, 'INFO m quote="a\\"=b"'),
    ({"message": "m", "raw": b"\xffok"}, "INFO m raw=\\xffok"),
    ({"message": "two\nlines\x1b[31m"}, "INFO two\\nlines\\x1b[31m"),
    ({"message": "m", "text": "a\nb"}, 'INFO m text="a\\nb"'),
    ({"message": "m", "password": Secret("hush")}, "INFO m password=***"),
    ({}, "INFO some_event"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "line"), LINES)
def test_console_lines(fields: dict[str, object], line: str) -> None:
    stream = console()
    logs.get_logger().info("some_event", **fields)
    assert stream.getvalue() == line + "\n"


def test_console_levels() -> None:
    stream = console(LogLevel.WARNING)
    log = logs.get_logger()
    log.debug("e", message="a")
    log.info("e", message="b")
    log.warning("e", message="c")
    log.error("e", message="d")
    assert stream.getvalue() == "WARNING c\nERROR d\n"


def test_json_lines() -> None:
    stream = io.StringIO()
    logs.configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    logs.get_logger().warning("link_down", message="Link down\n(reset)", retry_s=1.5, token=Secret("hush"), name="é")
    [line] = stream.getvalue().splitlines()
    record = json.loads(line)
    written = datetime.fromisoformat(record.pop("timestamp"))
    assert abs((datetime.now(UTC) - written).total_seconds()) < 10
    assert record == {
        "level": "warning",
        "event": "link_down",
        "message": "Link down\n(reset)",
        "retry_s": 1.5,
        "token": "***",
        "name": "é",
    }
    assert list(json.loads(line))[:4] == ["timestamp", "level", "event", "message"]


def test_json_without_a_sentence_and_with_an_exception() -> None:
    stream = io.StringIO()
    logs.configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logs.get_logger().exception("crashed")
    record = json.loads(stream.getvalue())
    assert record["event"] == record["message"] == "crashed"
    assert record["level"] == "error"
    assert "RuntimeError: broken" in record["exception"]


def test_auto_is_console_on_a_terminal_only() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        logs.configure(LogLevel.INFO, LogFormat.AUTO, stream)
        logs.get_logger().info("e", message="hello")
    assert terminal.getvalue() == "INFO hello\n"
    assert json.loads(pipe.getvalue())["message"] == "hello"


def test_a_logger_follows_a_later_configuration() -> None:
    log = logs.get_logger()
    stream = console()
    log.info("e", message="later")
    assert stream.getvalue() == "INFO later\n"


def test_libraries_are_heard_from_warning_on() -> None:
    stream = console(LogLevel.DEBUG)
    library = logging.getLogger("some.library")
    library.info("quiet")
    library.warning("careful: %s", "x")
    assert stream.getvalue() == "WARNING careful: x logger=some.library\n"


def test_a_closed_stderr_costs_lines_not_the_caller() -> None:
    before = logs.lost_lines()
    logs.configure(LogLevel.INFO, LogFormat.CONSOLE, Closed())
    logs.get_logger().info("e", message="nobody reads this")
    assert logs.lost_lines() == before + 1
