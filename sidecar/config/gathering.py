"""Which text each setting has, and where it came from: flags, environment, `NAME_FILE`, Faktory's own variables."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sidecar.config.declared import SETTINGS, Setting
from sidecar.config.parsing import masked_url

FILE_SUFFIX: Final = "_FILE"
MAX_SECRET_FILE: Final = 64 * 1024  # bytes; a larger one is the wrong file

# What Kubernetes injects for Services called `sidecar`, `sidecar-…` or `batch-…`.
_INJECTED: Final = re.compile(
    r"SIDECAR_PORT.*|SIDECAR_SERVICE_.*|\w+_SERVICE_(HOST|PORT\w*)|\w+_PORT_[0-9]+_(TCP|UDP|SCTP)\w*"
)
_INJECTED_URL: Final = re.compile(r"(tcp|udp|sctp)://[0-9a-fA-F.:\[\]]+")
_SHOWN: Final = 200  # characters of a wrong value that a message repeats


@dataclass(slots=True)
class Gathered:
    """The texts of one source by setting name, where each came from, and what was wrong with it."""

    texts: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, setting: Setting, text: str, source: str) -> None:
        """Take `text` as the setting's, if it is text: bytes of another encoding can be in no URL, log or page."""
        self.sources[setting.name] = source
        if is_text(text):
            self.texts[setting.name] = text
        else:
            encoding = sys.getfilesystemencoding()
            self.problems.append(f"{source.partition(' ')[2]} can't be read as {encoding}: expected text in UTF-8")


def is_text(text: str) -> bool:
    """Whether an argument, a variable or a path is text; Python hands bytes that are not on as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def from_flags(flags: Mapping[str, str]) -> Gathered:
    """The settings given on the command line, by setting name or `NAME_FILE`."""
    return _gather(flags, lambda name: f"flag {flag_of(name)}")


def from_environment(environ: Mapping[str, str], *, overridden: Collection[str]) -> Gathered:
    """The settings of the environment; an empty variable counts as absent.

    Args:
        overridden: the settings that a flag gives, which aren't looked at.
    """
    present = {name: text for name, text in environ.items() if text}
    gathered = _gather(present, lambda name: f"environment {name}", overridden)
    if "SIDECAR_UPSTREAM" not in overridden and "SIDECAR_UPSTREAM" not in gathered.sources:
        _faktory_variables(present, gathered)
    return gathered


def flag_of(name: str) -> str:
    """The flag of a setting, or of the file that holds it."""
    if name in SETTINGS:
        return SETTINGS[name].flag
    return SETTINGS[name.removesuffix(FILE_SUFFIX)].flag + "-file"


def shown(setting: Setting, text: str) -> str:
    """A wrong value as a message may repeat it: nothing of a secret, one line, not too long."""
    if setting.name == "SIDECAR_UPSTREAM":
        text = masked_url(text)
    elif setting.is_secret:
        return "'***'"
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def unknown_names(environ: Mapping[str, str]) -> Iterator[str]:
    """A warning for each variable that looks like a setting of ours and is none."""
    known = [*SETTINGS, *(name + FILE_SUFFIX for name, setting in SETTINGS.items() if setting.is_secret)]
    for name in sorted(environ):
        if not name.startswith(("SIDECAR_", "BATCH_")) or name in known or _is_injected(name, environ[name]):
            continue
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "see `faktory-sidecar serve --help`"
        yield f"{name} is not a setting and is ignored; {hint}"


def _is_injected(name: str, text: str) -> bool:
    if name.endswith("_PORT") and _INJECTED_URL.fullmatch(text):
        return True
    return _INJECTED.fullmatch(name) is not None


def _gather(given: Mapping[str, str], source: Callable[[str], str], overridden: Collection[str] = ()) -> Gathered:
    gathered = Gathered()
    for name, setting in SETTINGS.items():
        if name in overridden:
            continue
        text, file = given.get(name), given.get(name + FILE_SUFFIX) if setting.is_secret else None
        if text is not None and file is not None:
            gathered.problems.append(f"{name} and {name}{FILE_SUFFIX} are both set; give one of the two")
        elif text is not None:
            gathered.add(setting, text, source(name))
        elif file is not None:
            _read_secret(gathered, setting, file, source(name + FILE_SUFFIX))
    return gathered


def _read_secret(gathered: Gathered, setting: Setting, file: str, source: str) -> None:
    """The secret in a file, without the line end that editors add."""
    gathered.sources[setting.name] = source
    name = source.partition(" ")[2]
    try:
        with Path(file).expanduser().open(encoding="utf-8") as stream:
            text = stream.read(MAX_SECRET_FILE + 1).rstrip("\r\n")
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        gathered.problems.append(f"{name} is {file!r}: expected a readable file that holds the secret: {reason}")
        return
    if not text or len(text) > MAX_SECRET_FILE:
        what = "it is empty" if not text else "it is too large"
        gathered.problems.append(f"{name} is {file!r}: expected a file that holds the secret: {what}")
        return
    gathered.add(setting, text, source)


def _faktory_variables(present: Mapping[str, str], gathered: Gathered) -> None:
    """What Faktory's own clients look at: FAKTORY_PROVIDER names the variable that holds the URL, else FAKTORY_URL."""
    setting = SETTINGS["SIDECAR_UPSTREAM"]
    provider = present.get("FAKTORY_PROVIDER")
    if provider is None:
        if url := present.get("FAKTORY_URL"):
            gathered.add(setting, url, "environment FAKTORY_URL")
    elif not re.fullmatch(r"\w+", provider):
        gathered.problems.append(
            "FAKTORY_PROVIDER: expected the name of the variable that holds the URL, not a URL (FAKTORY_URL takes one)"
        )
        gathered.sources[setting.name] = "environment FAKTORY_PROVIDER"
    elif url := present.get(provider):
        gathered.add(setting, url, f"environment {provider}")
    else:
        gathered.problems.append(f"FAKTORY_PROVIDER is {provider!r}: expected the name of a variable that is set")
        gathered.sources[setting.name] = "environment FAKTORY_PROVIDER"
