"""The two forms of a record."""

from __future__ import annotations

import json
import logging
import os
import pty
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from sidecar import logs
from sidecar.config import LogFormat, LogLevel, Secret
from sidecar.outlet import Outlet

PATIENCE = 10.0
"""Seconds for a line to be written."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


class Sink:
    """A file that takes the lines."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the test
        self.outlet = Outlet(self._file.fileno())

    def getvalue(self) -> str:
        """All that was written so far."""
        assert self.outlet.flush(PATIENCE)
        return os.pread(self._file.fileno(), 1 << 20, 0).decode()


def console(level: LogLevel = LogLevel.INFO) -> Sink:
    return configured(level, LogFormat.CONSOLE)


def configured(level: LogLevel, format: LogFormat) -> Sink:
    sink = Sink()
    logs.configure(level, format, sink.outlet)
    return sink


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
    stream = configured(LogLevel.DEBUG, LogFormat.JSON)
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
    stream = configured(LogLevel.DEBUG, LogFormat.JSON)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logs.get_logger().exception("crashed")
    record = json.loads(stream.getvalue())
    assert record["event"] == record["message"] == "crashed"
    assert record["level"] == "error"
    assert "RuntimeError" in record["exception"]
    assert "test_records.py:" in record["exception"]
    assert "broken" not in record["exception"].replace('raise RuntimeError("broken")', "")


def test_auto_is_console_on_a_terminal_only() -> None:
    sink = configured(LogLevel.INFO, LogFormat.AUTO)
    logs.get_logger().info("e", message="hello")
    assert json.loads(sink.getvalue())["message"] == "hello"

    reader, terminal = pty.openpty()
    logs.configure(LogLevel.INFO, LogFormat.AUTO, Outlet(terminal))
    logs.get_logger().info("e", message="hello")
    said = b""
    while not said.endswith(b"\n"):  # a terminal gives a line in as many pieces as it likes
        said += os.read(reader, 1000)
    assert said == b"INFO hello\r\n"


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


HALVES = [
    {"message": "half a pair: \ud83d"},
    {"message": "m", "path": "/tmp/\udcff"},
    {"message": "m", "number": float("nan"), "deep": [float("inf")]},
    {"message": "m", "bytes": b"\xff\xfe"},
    {"message": "m", "unshowable": object.__new__(type("Odd", (), {"__str__": lambda _: 1 // 0}))},
    {"message": "m", "loop": (loop := [0])},
]
loop.append(loop)  # type: ignore[arg-type]  # a list within itself


@pytest.mark.parametrize("fields", HALVES, ids=lambda fields: " ".join(fields))
@pytest.mark.parametrize("format", [LogFormat.JSON, LogFormat.CONSOLE])
def test_whatever_a_record_holds_it_is_one_line_of_utf8_and_harms_nobody(
    fields: dict[str, object], format: LogFormat
) -> None:
    sink = configured(LogLevel.INFO, format)
    logs.get_logger().info("some_event", **fields)
    [line] = sink.getvalue().splitlines()
    if format is LogFormat.JSON:
        record = json.loads(line, parse_constant=pytest.fail)
        assert record["event"] == "some_event"
        line.encode()  # as strict readers of JSON demand, no escaped half either
        record["message"].encode()


@pytest.mark.usefixtures("defects_expected")
def test_a_defect_tells_its_type_and_place_and_keeps_its_words_to_itself() -> None:
    sink = configured(LogLevel.INFO, LogFormat.JSON)
    before = logs.defects().get("somewhere", 0)
    try:
        try:
            raise ValueError("password hunter2")
        except ValueError as cause:
            raise ExceptionGroup("hunter2", [RuntimeError("hunter2"), KeyError("hunter2")]) from cause
    except ExceptionGroup as error:
        logs.defect("somewhere", error, "it goes on")
    record = json.loads(sink.getvalue())
    assert record["event"] == "defect"
    assert record["where"] == "somewhere"
    for word in ("ValueError", "RuntimeError", "KeyError", "test_records.py"):
        assert word in record["exception"]
    words = [line for line in record["exception"].splitlines() if "test_records.py" not in line]  # but for our source
    assert "hunter2" not in record["message"] + " ".join(words)
    assert logs.defects()["somewhere"] == before + 1


def test_a_library_that_formats_wrongly_is_heard_all_the_same() -> None:
    sink = configured(LogLevel.INFO, LogFormat.JSON)
    logging.getLogger("some.library").warning("%d jobs", "many")
    assert json.loads(sink.getvalue())["message"] == "%d jobs"
