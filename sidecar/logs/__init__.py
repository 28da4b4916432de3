"""Log records: one line each on stderr, floods summed up."""

from sidecar.logs.defects import DEFECTS, catch_the_rest, defect, defects, described
from sidecar.logs.floods import TIMEOUT, FloodLog, FlushLog
from sidecar.logs.records import configure, get_logger, is_configured, lost_lines

__all__ = [
    "DEFECTS",
    "TIMEOUT",
    "FloodLog",
    "FlushLog",
    "catch_the_rest",
    "configure",
    "defect",
    "defects",
    "described",
    "get_logger",
    "is_configured",
    "lost_lines",
]
