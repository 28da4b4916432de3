"""The load programs around the Go and Node clients: built once, kept in the cache, left out where that can't be."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import found
from bench.children import Child, Program
from bench.orders import Client

SOURCES: Final = Path(__file__).parent / "programs"
BUILD_PATIENCE: Final = 300.0  # seconds: a cold Go build on a slow network


class CannotBuild(Exception):
    """Why a program can't be had: a few words."""


class Foreign:
    """Load programs in other languages.

    Args:
        directory: for what they say.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._programs: dict[Client, Program] = {}
        self._commands: dict[Client, list[str]] = {}
        self._missing: dict[Client, str] = {}

    def missing(self, client: Client) -> str:
        """Why a client's program can't be had, "" when it can. Builds it when it is first asked for."""
        if client not in ("go", "node"):
            return ""
        if client not in self._commands and client not in self._missing:
            try:
                self._commands[client] = _go() if client == "go" else _node()
            except CannotBuild as error:
                self._missing[client] = str(error)
        return self._missing.get(client, "")

    def program(self, client: Client) -> Program:
        """A client's program; started when it is first needed."""
        if client not in self._programs:
            child = Child(f"the {client} program", self._commands[client], self._directory / f"{client}.stderr")
            self._programs[client] = Program(child)
        return self._programs[client]

    def close(self) -> None:
        """Ends them."""
        for program in self._programs.values():
            program.child.stop()
        self._programs.clear()


def _go() -> list[str]:
    go = found.go()
    if go is None:
        raise CannotBuild("no Go toolchain was found")
    source = SOURCES / "go"
    place = _place("bench-go", source)
    if not place.exists():
        with tempfile.TemporaryDirectory(prefix="bench-go.", dir=place.parent) as scratch:
            module = Path(scratch) / "module"
            shutil.copytree(source, module)
            program = Path(scratch) / "load"
            _run([str(go), "build", "-trimpath", "-o", str(program), "."], module)
            program.rename(place)
    return [str(place)]


def _node() -> list[str]:
    node = found.node()
    if node is None:
        raise CannotBuild("Node with npm was not found")
    source = SOURCES / "node"
    place = _place("bench-node", source)
    if not place.exists():
        with tempfile.TemporaryDirectory(prefix="bench-node.", dir=place.parent) as scratch:
            package = Path(scratch) / "package"
            shutil.copytree(source, package, ignore=shutil.ignore_patterns("node_modules"))
            _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], package)
            package.rename(place)
    return [str(node), str(place / "load.mjs")]


def _place(name: str, source: Path) -> Path:
    """Where a program built of these sources is kept."""
    digest = hashlib.sha256()
    for path in sorted(source.glob("*")):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    root = found.cache()
    root.mkdir(parents=True, exist_ok=True)
    return root / f"{name}-{digest.hexdigest()[:12]}"


def _run(command: Sequence[str], directory: Path) -> None:
    settings = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise CannotBuild(f"{Path(command[0]).name} failed: {lines[-1][:200] if lines else done.returncode}")
