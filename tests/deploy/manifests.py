"""The manifests of deploy/kubernetes, read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"


def resources(path: Path) -> list[dict[str, Any]]:
    """All resources of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def resource(file: str, kind: str) -> dict[str, Any]:
    """The one resource of a kind in a file of deploy/kubernetes."""
    found = [each for each in resources(DIRECTORY / file) if each["kind"] == kind]
    assert len(found) == 1, f"{len(found)} resources of kind {kind} in {file}"
    return found[0]


def all_files() -> list[Path]:
    """Every YAML file below deploy/kubernetes."""
    return sorted(DIRECTORY.rglob("*.yaml"))
