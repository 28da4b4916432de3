"""Programs that come as Debian packages and as nothing else: installed where we are root and apt works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path


class NotInstallable(Exception):
    """The program isn't here, and this user or system can't install it; the text says how somebody can."""


def program(name: str, package: str, *, run: Callable[[Sequence[str]], None]) -> Path:
    """A program from PATH, installed first where that is possible.

    Args:
        package: the Debian package that has it.
        run: runs a command to its end, and raises when it fails.

    Raises:
        NotInstallable: it isn't here and can't be installed.
    """
    found = shutil.which(name)
    if found is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NotInstallable(f"{name} is not on PATH; as root on Debian or Ubuntu: apt-get install {package}")
        quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq")
        run([*quiet, "update"])
        run([*quiet, "install", "--yes", "--no-install-recommends", package])
        found = shutil.which(name)
    if found is None:
        raise NotInstallable(f"the package {package} brought no {name}")
    return Path(found)
