"""Log records: one line each on stderr, floods summed up."""

from sidecar.logs.floods import TIMEOUT, FloodLog, FlushLog
from sidecar.logs.records import configure, get_logger, lost_lines

__all__ = ["TIMEOUT", "FloodLog", "FlushLog", "configure", "get_logger", "lost_lines"]
