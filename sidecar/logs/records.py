"""From a call to a line on stderr: structlog set up for two forms, `console` and `json`.

    log = get_logger()
    log.info("link_up", message="Link up: Faktory 1.10.0, 48.7 ms", version="1.10.0", rtt_ms=48.7)

The first argument is the stable event, `message` the sentence for people, the rest are fields. Console lines are
`INFO <message> key=value`, with only the fields that the sentence doesn't tell already. Nothing here is ever given a
password, a token or a job's arguments.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from sidecar.config.values import LogFormat, LogLevel
from sidecar.logs.defects import described, places
from sidecar.outlet import STDERR, Outlet

_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN: Final = re.compile(r"[^\s\"'=]+")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


def configure(level: LogLevel, format: LogFormat, outlet: Outlet = STDERR) -> None:
    """Set up all logging of the process, that of libraries included (theirs from WARNING on).

    Args:
        outlet: where lines go.
    """
    as_json = format is LogFormat.JSON or (format is LogFormat.AUTO and not outlet.is_terminal)
    render = _json_line if as_json else _console_line
    structlog.configure(
        processors=[structlog.processors.add_log_level, _exception, cast(Processor, partial(_rendered, render))],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Lines(outlet),
        cache_logger_on_first_use=False,
    )
    outlet.gap = partial(_gap, render)
    logging.basicConfig(handlers=[_LibraryRecords()], level=max(logging.WARNING, _LEVELS[level]), force=True)


def is_configured() -> bool:
    """Whether `configure` was called: before it, records go nowhere that anybody would look."""
    return structlog.is_configured()


def get_logger() -> FilteringBoundLogger:
    """A logger that follows `configure`, also when it was made before."""
    return cast(FilteringBoundLogger, structlog.get_logger())


def _exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The exception that a record is about, by type and place: its words may hold a secret."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exception() if given is True else given
    if isinstance(error, BaseException):
        event["exception"] = places(error)
    return event


Render = Callable[[EventDict], str]


def _rendered(render: Render, _logger: object, _method: str, event: EventDict) -> bytes:
    """A record as bytes, UTF-8; what can't be written as it is must not harm who logs it."""
    level, name = event["level"], event["event"]
    try:
        line = render(event)
    except Exception as error:
        line = render(
            {"level": level, "event": name, "message": f"{name} (its fields can't be shown: {described(error)})"}
        )
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # half a character: from a name of bytes that aren't UTF-8, or from a client's JSON
        return _SURROGATE.sub(_halved, line).encode() + b"\n"


def _halved(match: re.Match[str]) -> str:
    """Half a character in words that are fine within a JSON string, too: `\\\\udcff`."""
    return f"\\\\u{ord(match[0]):04x}"


def _gap(render: Render, lines: int) -> bytes:
    what = "line was" if lines == 1 else "lines were"
    message = f"{lines:,} log {what} dropped here: nobody read the log for a while"
    return (
        render({"level": "warning", "event": "log_lines_dropped", "message": message, "dropped": lines}).encode()
        + b"\n"
    )


def _json_line(event: EventDict) -> str:
    record = {
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": event.pop("level"),
        "event": event["event"],
        "message": event.pop("message", event.pop("event")),
        **event,
    }
    try:
        return _encode(record)
    except ValueError:  # JSON has no word for these numbers
        return _encode({key: str(value) if isinstance(value, float) else value for key, value in record.items()})


_encode: Final = json.JSONEncoder(
    default=lambda value: _text(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


def _console_line(event: EventDict) -> str:
    level, name = str(event.pop("level")).upper(), event.pop("event")
    exception = event.pop("exception", None)
    message = _CONTROL.sub(_escaped, str(event.pop("message", name)))
    fields = "".join(f" {key}={_field(value)}" for key, value in event.items() if not _told(message, value))
    trace = "" if exception is None else f"\n{exception}"
    return f"{level} {message}{fields}{trace}"


def _told(message: str, value: object) -> bool:
    """Whether the sentence has this value already, as a word of its own: `jobs=100` in `batch of 100 jobs`."""
    spellings = {str(value)}
    if isinstance(value, int) and not isinstance(value, bool):
        spellings.add(f"{value:,}")
    return any(re.search(rf"(?<![\w.,]){re.escape(text)}(?![\w]|[.,]\w)", message) for text in spellings if text)


def _field(value: object) -> str:
    text = _text(value)
    if _PLAIN.fullmatch(text) and not _CONTROL.search(text):
        return text
    return json.dumps(text, ensure_ascii=False)


def _text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


class _Lines:
    """Where structlog hands a finished line to."""

    def __init__(self, outlet: Outlet) -> None:
        self.msg = outlet.put
        self.log = self.debug = self.info = self.warning = self.error = self.critical = self.exception = outlet.put


def lost_lines() -> int:
    """How many log lines were not written since the start, because nobody read them or nobody was there."""
    return STDERR.lost


class _LibraryRecords(logging.Handler):
    """What libraries say by the standard library's logging, as records of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # the library's mistake, which must not become one of who called it
            message = str(record.msg)
        fields: dict[str, Any] = {"message": message, "logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        get_logger().log(record.levelno, "library", **fields)
