"""What our images say of themselves, read from their Dockerfiles."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = {
    "faktory-sidecar": ROOT / "Dockerfile",
    "faktory-sidecar-examples": ROOT / "deploy" / "examples" / "Dockerfile",
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image's entry point, default arguments and environment."""

    name: str
    entrypoint: list[str]
    command: list[str]
    environment: dict[str, str]

    @property
    def is_sidecar(self) -> bool:
        """Whether it is the sidecar's own."""
        return self.name == "faktory-sidecar"


def image_named(reference: str) -> Image:
    """One of our images, `faktory-sidecar:0.1.0`.

    Raises:
        KeyError: it is none of ours.
    """
    name = reference.rpartition("/")[2].partition(":")[0]
    stage = last_stage(DOCKERFILES[name])
    inherited = {} if name == "faktory-sidecar" else image_named("faktory-sidecar").environment
    return Image(name, _words(stage, "ENTRYPOINT"), _words(stage, "CMD"), inherited | _environment(stage))


def last_stage(path: Path) -> list[str]:
    """The instructions of the last stage, each on one line."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(index for index, line in enumerate(lines) if line.startswith("FROM "))
    return lines[last:]


def _words(stage: list[str], instruction: str) -> list[str]:
    found = [line.removeprefix(instruction) for line in stage if line.startswith(f"{instruction} ")]
    words: list[str] = json.loads(found[-1]) if found else []
    return words


def _environment(stage: list[str]) -> dict[str, str]:
    settings = [line.removeprefix("ENV ") for line in stage if line.startswith("ENV ")]
    return dict(pair.split("=", 1) for line in settings for pair in line.split())
