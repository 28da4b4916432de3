"""What can go wrong, named once: what a client is told, and what stops the start."""

from __future__ import annotations

# Exit codes, as sysexits.h has them where it has any.
ACKNOWLEDGED_LOST = 70
"""Jobs that were acknowledged are gone: they were only in memory."""
JOBS_LEFT = 75
"""Jobs are left that nobody will send by himself."""


class Refusal(Exception):
    """A command or a job that is answered with an error.

    Mapped once per edge: `-CODE message` on the Faktory Work Protocol, a problem document over HTTP.

    Args:
        code: first word of the reply, `ERR` unless Faktory itself knows another one (`NOTUNIQUE`).
        message: one line, for the person who reads the producer's log.
        retry: true where the same command can succeed later without a change (HTTP 503 instead of 422).
    """

    def __init__(self, message: str, *, code: str = "ERR", retry: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry

    def line(self) -> bytes:
        """The reply line of the Faktory Work Protocol, CRLF included."""
        text = f"-{self.code} {self.message}".replace("\r", " ").replace("\n", " ")
        return text.encode() + b"\r\n"


class StartError(Exception):
    """Something that stops the start: one clear line for the operator, and the process's exit code.

    Args:
        message: what is wrong, with the value and what is allowed.
        exit_code: 2 for settings, 1 for all else.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
