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
from typing import Any, ClassVar, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from sidecar.config.values import LogFormat, LogLevel

_LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN: Final = re.compile(r"[^\s\"'=]+")


def configure(level: LogLevel, format: LogFormat, stream: TextIO | None = None) -> None:
    """Set up all logging of the process, that of libraries included (theirs from WARNING on).

    Args:
        stream: where lines go; stderr unless given.
    """
    output = sys.stderr if stream is None else stream
    as_json = format is LogFormat.JSON or (format is LogFormat.AUTO and not output.isatty())
    structlog.configure(
        processors=_processors(as_json=as_json),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Lines(output),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryRecords()], level=max(logging.WARNING, _LEVELS[level]), force=True)


def get_logger() -> FilteringBoundLogger:
    """A logger that follows `configure`, also when it was made before."""
    return cast(FilteringBoundLogger, structlog.get_logger())


def _processors(*, as_json: bool) -> list[Processor]:
    start: list[Processor] = [structlog.processors.add_log_level, structlog.processors.format_exc_info]
    if as_json:
        return [*start, structlog.processors.TimeStamper(fmt="iso", utc=True), _json_line]
    return [*start, _console_line]


def _json_line(_logger: object, _method: str, event: EventDict) -> str:
    head = {
        "timestamp": event.pop("timestamp"),
        "level": event.pop("level"),
        "event": event["event"],
        "message": event.pop("message", event.pop("event")),
    }
    return json.dumps({**head, **event}, default=_text, ensure_ascii=False, separators=(",", ":"))


def _console_line(_logger: object, _method: str, event: EventDict) -> str:
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
    """Where structlog hands a finished line to: one write a line; a closed stderr loses lines, never the caller."""

    lost: ClassVar[int] = 0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream object itself was closed
            _Lines.lost += 1

    log = debug = info = warning = error = critical = exception = msg


def lost_lines() -> int:
    """How many log lines could not be written since the start: there is no log left to say so in."""
    return _Lines.lost


class _LibraryRecords(logging.Handler):
    """What libraries say by the standard library's logging, as records of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"message": record.getMessage(), "logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        get_logger().log(record.levelno, "library", **fields)
