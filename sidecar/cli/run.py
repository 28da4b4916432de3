"""`faktory-sidecar run -- COMMAND...`: a sidecar for as long as one command runs (cron, CI, Kubernetes Jobs)."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import click
import trio

from sidecar import logs
from sidecar.app.banner import reachable
from sidecar.app.stopping import Stop
from sidecar.cli.options import given_flags, load_and_log, settings_options
from sidecar.clock import RunningClock
from sidecar.config import SETTINGS, Ack, Loaded, Settings
from sidecar.config.gathering import FILE_SUFFIX
from sidecar.errors import JOBS_LEFT, StartError
from sidecar.journal.probe import look
from sidecar.journal.slots import free_slot
from sidecar.journal.volume import file_system, what_is_lost
from sidecar.signals import ENDED_BY, INBOX, INSISTING, name_of

NOT_FOUND: Final = 127  # both as shells have it
NOT_EXECUTABLE: Final = 126
OURS: Final = 125  # the sidecar itself failed

DEFAULTS: Final = {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_HTTP_LISTEN": "off", "SIDECAR_LOG_LEVEL": "warning"}
FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
KILL_AFTER: Final = 5.0  # s that a command has after SIGTERM when the sidecar itself failed


class Listening(Protocol):
    """What `serve` reports as started."""

    @property
    def addresses(self) -> Sequence[str]: ...


@click.command("run", context_settings={"allow_interspersed_args": False})
@settings_options
@click.argument("command_line", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, command_line: tuple[str, ...]) -> int:
    """Run COMMAND with a sidecar of its own, on a free port, and exit with its code.

    COMMAND finds FAKTORY_URL in its environment, and neither the real server's address nor any password. When it
    has ended, its jobs are drained. HTTP is off and only warnings are logged unless the settings say otherwise.
    """
    from sidecar.cli.entry import failed

    try:
        return _run(context, command_line)
    except click.ClickException:
        raise
    except Exception as error:
        code = failed(error)
        return OURS if code == 1 else code


def _run(context: click.Context, command_line: tuple[str, ...]) -> int:
    _check_runnable(command_line[0])
    given = {name: text for name, text in os.environ.items() if text}
    loaded = load_and_log(given_flags(context), DEFAULTS | given)
    with _own_journal(loaded) as ours:
        code = trio.run(around, ours, command_line, os.environ, clock=RunningClock())
        return code or _left_in(ours.settings.journal_dir)


def _own_journal(loaded: Loaded) -> AbstractContextManager[Loaded]:
    """The settings with a journal directory that no other `run` has, unless one was given or none is needed."""
    settings = loaded.settings
    if loaded.sources["SIDECAR_JOURNAL_DIR"] != "default" or not settings.auto_batch or settings.ack is not Ack.DISK:
        return nullcontext(loaded)
    return _in_a_slot(loaded)


@contextmanager
def _in_a_slot(loaded: Loaded) -> Iterator[Loaded]:
    with free_slot(loaded.settings.journal_dir) as directory:
        yield replace(loaded, settings=replace(loaded.settings, journal_dir=directory))


def _left_in(directory: Path) -> int:
    """75 where jobs stay in a journal that doesn't survive, for nobody will send them then; else 0."""
    stay = look(directory).waiting
    lost = what_is_lost(file_system(directory)) if stay else None
    if lost is None:
        return 0
    logs.get_logger().error("jobs_left", message=f"{stay:,} jobs stay in {directory}, and {lost}", jobs=stay)
    return JOBS_LEFT


def _check_runnable(program: str) -> None:
    """Find out before anything is started.

    Raises:
        StartError: exit code 127 or 126, as a shell would.
    """
    if shutil.which(program) is not None:
        return
    if os.path.exists(program) and os.sep in program:
        raise StartError(f"{program}: not executable", exit_code=NOT_EXECUTABLE)
    raise StartError(f"{program}: command not found", exit_code=NOT_FOUND)


async def around(loaded: Loaded, command_line: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve, run the command, drain.

    Returns:
        The command's exit code, 128 + n when signal n ended it; where that is 0, the sidecar's own.

    Raises:
        StartError: the sidecar or the command could not be started; alone or in a group.
    """
    from sidecar.app.sending import beside_left_slots
    from sidecar.app.serving import serve

    stop, served = Stop(), 0

    async def serving(task_status: trio.TaskStatus[Listening]) -> None:
        nonlocal served
        settings = loaded.settings
        serving = partial(serve, settings, stop=stop, task_status=task_status)
        served = await beside_left_slots(settings, serving, patience=settings.drain_timeout)

    with INBOX.reading() as signals:
        async with trio.open_nursery() as forwarding:
            async with trio.open_nursery() as nursery:
                bound = await nursery.start(serving)
                environment = child_environment(environ, loaded, local_url(loaded.settings, bound.addresses[0]))
                process = await _start(command_line, environment)
                forwarding.start_soon(_forward, signals, process, stop)
                code = await _finished(process)
                stop.asked.set()
            forwarding.cancel_scope.cancel()
    return code or served


def child_environment(environ: Mapping[str, str], loaded: Loaded, url: str) -> dict[str, str]:
    """The command's environment: `url` as FAKTORY_URL, and nothing that leads past the sidecar or holds a secret."""
    secrets = {name for name, setting in SETTINGS.items() if setting.is_secret}
    removed = {"FAKTORY_PROVIDER", *secrets, *(name + FILE_SUFFIX for name in secrets)}
    source, _, name = loaded.sources["SIDECAR_UPSTREAM"].partition(" ")
    if source == "environment":  # may be the variable that FAKTORY_PROVIDER named
        removed.add(name)
    return {name: text for name, text in environ.items() if name not in removed} | {"FAKTORY_URL": url}


def local_url(settings: Settings, address: str) -> str:
    """The URL of the local endpoint, for a client on this machine.

    Args:
        address: what was bound, `127.0.0.1:43121`.
    """
    secret = settings.listen_password
    credentials = "" if secret is None else f":{quote(secret.reveal(), safe='')}@"
    scheme = "tcp" if settings.listen_tls_cert is None else "tcp+tls"
    return f"{scheme}://{credentials}{reachable(address)}"


async def _start(command_line: Sequence[str], environment: Mapping[str, str]) -> trio.Process:
    try:
        return await trio.lowlevel.open_process(list(command_line), env=environment)
    except OSError as error:
        reason = (error.strerror or "cannot be run").lower()
        exit_code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise StartError(f"{command_line[0]}: {reason}", exit_code=exit_code) from error


async def _finished(process: trio.Process) -> int:
    """The exit code of a command; when the sidecar fails meanwhile, the command is ended too."""
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            await _end(process)
    return code if code >= 0 else ENDED_BY - code


async def _end(process: trio.Process) -> None:
    process.terminate()
    with trio.move_on_after(KILL_AFTER, shield=True):
        await process.wait()
    if process.returncode is None:
        process.kill()


async def _forward(signals: AsyncIterable[int], process: trio.Process, stop: Stop) -> None:
    """Pass signals on while the command runs; one that insists while its jobs are drained stops at once."""
    async for number in signals:
        if process.returncode is None:
            if number not in FROM_TERMINAL or not _in_foreground():
                os.kill(process.pid, number)
        elif number in INSISTING:
            logs.get_logger().warning("drain_cut_short", message=f"Stopped by {name_of(number)}")
            stop.insisted.set()


def _in_foreground() -> bool:
    """Whether we are a terminal's foreground group: then the terminal's signals reach the command without us."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
