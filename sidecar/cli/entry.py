"""The table of commands, and what every command has in common: errors are one line on stderr, never a traceback
with words that may hold a secret.

Exit codes: 0 fine, 1 it did not work, 2 settings or command line are wrong, 70 acknowledged jobs are gone, 75 jobs are
left, 130 interrupted. `run` has its command's, and 125 where these have 1.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import click

from sidecar import __version__
from sidecar.config.values import LogFormat, LogLevel
from sidecar.errors import StartError
from sidecar.signals import INBOX

PROGRAM: Final = "faktory-sidecar"
DEFAULT_COMMAND: Final = "serve"
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


class Entry(NamedTuple):
    """Where a command is and what `--help` says of it; the module is imported when the command is run."""

    module: str
    summary: str
    attribute: str = "command"
    finishes: bool = False
    """It reads signals itself, and has something to finish when one comes."""


COMMANDS: Final[dict[str, Entry]] = {
    "serve": Entry("sidecar.cli.serve", "The sidecar (what happens without a command).", finishes=True),
    "run": Entry("sidecar.cli.run", "A sidecar on a free port around one command: run -- COMMAND...", finishes=True),
    "check": Entry("sidecar.cli.check", "Settings, upstream, journal and ports, with advice; changes nothing."),
    "demo": Entry("sidecar.cli.demo", "The main job in half a minute, with nothing but Python."),
    "journal": Entry("sidecar.cli.journal", "Look into the journal; its dead letters; export, verify, send."),
    "healthcheck": Entry("sidecar.cli.healthcheck", "Whether a running sidecar is well, for images without curl."),
}


class LazyCommands(click.Group):
    """A group that imports a command's module only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if not entry.finishes:
            INBOX.disarm()
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a command, `serve`: `faktory-sidecar --ack memory` is `faktory-sidecar serve --ack memory`."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help", "--version", "--")):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"Settings come from the environment or from options; `{PROGRAM} serve --help` lists them.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def commands() -> None:
    """A local stand-in for a Faktory server that is far away.

    Producers are pointed at localhost; their single PUSHes leave as pipelined batches.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever is expected to go wrong becomes `error: ...`."""
    try:
        result = commands.main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _failed(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. The interpreter would complain again when it flushes at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return failed(error)
    except BaseExceptionGroup as group:
        return _failed_in_group(group)
    return result if isinstance(result, int) else 0


def failed(error: Exception) -> int:
    """Say what went wrong; the exit code for it."""
    if isinstance(error, StartError):
        return _failed(str(error), error.exit_code)
    if _is_refused_path(error):
        return _failed(_refused_path(error), 1)
    return _failed_in_group(error) if isinstance(error, BaseExceptionGroup) else _failed_by_a_defect(error)


def _failed_in_group(group: BaseExceptionGroup[BaseException]) -> int:
    """The expected errors in what a nursery raised; anything else beside them is a bug."""
    expected, rest = group.split(
        lambda error: isinstance(error, StartError | KeyboardInterrupt) or _is_refused_path(error)
    )
    if rest is not None or expected is None:
        return _failed_by_a_defect(rest or group)
    codes = [failed(error) for error in _leaves(expected) if isinstance(error, Exception)]
    return codes[0] if codes else INTERRUPTED


def _is_refused_path(error: BaseException) -> bool:
    """Whether the system refuses a file or directory that it names: the paths that we use are the operator's."""
    return isinstance(error, OSError) and error.filename is not None and error.strerror is not None


def _refused_path(error: Exception) -> str:
    assert isinstance(error, OSError)
    return f"{os.fsdecode(error.filename)}: {str(error.strerror).lower()}"


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


def _failed_by_a_defect(error: BaseException) -> int:
    """Say where a mistake of ours is; its words may hold a secret and are left out."""
    from sidecar import logs  # slow to import

    if not logs.is_configured():
        logs.configure(LogLevel.INFO, LogFormat.AUTO)
    logs.defect("process", error, "it ends here")
    return 1


def _failed(message: str, exit_code: int) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return exit_code
