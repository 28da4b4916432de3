"""Imports go downward through the layers of docs/architecture.md, and never in a circle."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "sidecar"
OUTSIDE = {"tests", "bench"}


def layers() -> dict[str, int]:
    """Each part of the product with the number of its layer, the highest first."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("## Layers", 1)[1].split("| --- | --- |\n", 1)[1].split("\n\n", 1)[0]
    found: dict[str, int] = {}
    for number, row in enumerate(table.splitlines()):
        for part in re.findall(r"`([a-z_]+)/?`", row.split("|")[2]):
            if part in {path.stem for path in SOURCE.iterdir()}:
                assert part not in found, f"{part} is in two layers"
                found[part] = number
    return found


def name_of(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    """The modules of ours that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{file}: a relative import"
            assert not node.level, f"{file}: a relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found & MODULES


FILES = {name_of(file): file for file in sorted(SOURCE.rglob("*.py"))}
MODULES = set(FILES)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_part_has_its_layer() -> None:
    parts = {part_of(module) for module in MODULES} - {""}
    assert parts == set(layers())


def test_imports_go_downward() -> None:
    height = layers()
    upward = [
        f"{module} imports {target}"
        for module, file in FILES.items()
        for target in sorted(imports(file))
        if part_of(module) and part_of(target) and height[part_of(target)] < height[part_of(module)]
    ]
    assert upward == []


@pytest.mark.parametrize("of", ["parts", "modules"])
def test_nothing_imports_in_a_circle(of: str) -> None:
    graph: dict[str, set[str]] = {}
    for module, file in FILES.items():
        here = part_of(module) if of == "parts" else module
        there = {part_of(target) if of == "parts" else target for target in imports(file)}
        package = {name for name in there if here.startswith(f"{name}.") or name in ("", here)}
        graph.setdefault(here, set()).update(there - package)
    TopologicalSorter(graph).prepare()


def test_the_product_uses_nothing_that_stands_beside_it() -> None:
    for module, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not OUTSIDE & {name.split(".")[0] for name in names}, module
