"""docs/kubernetes.md: what it names exists, and its examples are valid."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from sidecar.cli.entry import COMMANDS
from tests.deploy.manifests import DIRECTORY

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
TEXT = PAGE.read_text()


def fences(language: str) -> list[str]:
    """The page's blocks of code in a language, without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", TEXT, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def slug(heading: str) -> str:
    """The anchor that a heading has on GitHub."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere() -> None:
    headings = {slug(heading) for heading in re.findall(r"^## (.*)$", TEXT, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (PAGE.parent / target).exists(), target


def test_paths_in_code_exist() -> None:
    for path in re.findall(r"(?:deploy|tests)/[\w./-]+\w", " ".join(re.findall(r"`[^`\n]+`", TEXT))):
        assert (ROOT / path).exists(), path


def test_the_kustomization_of_the_page_builds(manifest_checker: Path, tmp_path: Path) -> None:
    text = next(block for block in fences("yaml") if "kind: Kustomization" in block)
    component = Path(*[".."] * len(tmp_path.parts[1:])) / DIRECTORY.relative_to("/") / "component"
    (tmp_path / "kustomization.yaml").write_text(
        text.replace("faktory-sidecar/deploy/kubernetes/component", str(component))
    )
    (tmp_path / "deployment.yaml").write_text((DIRECTORY / "before" / "deployment.yaml").read_text())
    done = subprocess.run([manifest_checker, "kustomize", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [sidecar] = yaml.safe_load(done.stdout)["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["image"] == "registry.example.com/faktory-sidecar:0.1.0"


def test_commands_of_the_page_are_commands() -> None:
    named = set(re.findall(r"`?faktory-sidecar (check|healthcheck|run|serve|journal)\b", TEXT))
    assert named
    assert named <= set(COMMANDS)
