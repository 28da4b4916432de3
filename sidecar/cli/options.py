"""An option for every setting, and the settings from them and the environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from sidecar import logs
from sidecar.config import SETTINGS, Loaded, Setting, load

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(command: F) -> F:
    """Give a command an option for every setting, and `NAME-file` for secrets.

    The command gets the ones that were given as `flags`, a mapping of setting name to text, which `load` checks:
    so a wrong value is told in the same words wherever it came from.
    """
    for setting in reversed(list(SETTINGS.values())):
        if setting.is_secret:
            command = _option(setting.name + "_FILE", setting.flag + "-file", f"A file that holds {setting.flag}.")(
                command
            )
        command = _option(setting.name, setting.flag, _help(setting))(command)
    return command


def load_and_log(flags: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    """The settings of a process; sets up the log by them and writes their warnings to it.

    Raises:
        StartError: exit code 2, what is wrong.
    """
    loaded = load(environ, flags)
    logs.configure(loaded.settings.log_level, loaded.settings.log_format)
    logs.catch_the_rest()
    for warning in loaded.warnings:
        logs.get_logger().warning("setting_unknown", message=warning)
    return loaded


def given_flags(context: click.Context) -> dict[str, str]:
    """The settings that the command line gives, by setting name."""
    flags = context.obj
    return dict(flags) if isinstance(flags, dict) else {}


def _option(name: str, flag: str, help: str) -> Callable[[F], F]:
    def keep(context: click.Context, _parameter: click.Parameter, text: str | None) -> None:
        if text is not None:
            context.obj = {**given_flags(context), name: text}

    return click.option(flag, metavar="TEXT", expose_value=False, callback=keep, help=help)


def _help(setting: Setting) -> str:
    default = "" if setting.default_text is None else f" Default: {setting.default_text}."
    return f"{setting.help}{default} [{setting.name}]"
