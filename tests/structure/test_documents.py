"""What documents name is there, and every bound of the code is in docs/limits.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.structure.test_layers import ROOT, SOURCE

DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/*.md"),
        ROOT / "tests" / "README.md",
    ]
)
NAMED_FILE = re.compile(r"`([\w./-]+\.(?:py|md|sh|yaml|toml|c))`|`[^`\n]*?(tests/[\w/]+\.py)")
NAMED_IN_FILE = re.compile(r"`([\w./-]+\.py)`((?:,? \(?`[A-Za-z_]\w*`\)?)+)")
NAMED_TEST = re.compile(r"`(test_\w+)`")
PLACES = (ROOT, SOURCE, ROOT / "docs", ROOT / "tests", ROOT / "bench")
NOT_OURS = {"faktory.yaml"}
BOUND = re.compile(r"MAX_[A-Z_]+|[A-Z_]+_MAX")
NO_SERVICE = ("demo", "cli")
"""Parts that serve nobody: what they bound is their own."""


def found(name: str) -> list[Path]:
    """The files that a document can mean: from a usual place, else with that name anywhere in product or tests."""
    direct = [place / name for place in PLACES if (place / name).is_file()]
    return direct or [path for place in (SOURCE, ROOT / "tests", ROOT / "deploy") for path in place.rglob(name)]


def names_in(path: Path) -> set[str]:
    """What a module defines, at its top, and in its classes."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(ctx=ast.Store()):
                names.add(node.attr)
            case ast.alias():
                names.add(node.asname or node.name)
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    names = [alone or within for alone, within in NAMED_FILE.findall(text)]
    missing = [name for name in names if name not in NOT_OURS and not found(name)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_that_a_document_gives_a_file_are_in_it(document: Path) -> None:
    missing: list[str] = []
    for file, names in NAMED_IN_FILE.findall(document.read_text()):
        there = set[str]().union(*(names_in(path) for path in found(file)))
        missing += [f"{file} {name}" for name in re.findall(r"`(\w+)`", names) if name not in there]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_a_document_names_exist(document: Path) -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    names = set(NAMED_TEST.findall(document.read_text()))
    assert [name for name in sorted(names) if name not in files and f"def {name}" not in tests] == []


def bounds() -> Iterator[tuple[str, str]]:
    """The bounds of the code: the file, as limits.md calls it, and the constant's name."""
    for path in sorted(SOURCE.rglob("*.py")):
        file = str(path.relative_to(SOURCE))
        if file.startswith(NO_SERVICE):
            continue
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name) and BOUND.fullmatch(name.id):
                        yield file, name.id


def test_every_bound_of_the_code_is_told() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    told = {(file, name) for file, names in NAMED_IN_FILE.findall(text) for name in re.findall(r"`(\w+)`", names)}
    untold = [bound for bound in bounds() if bound not in told]
    assert len(list(bounds())) > 20
    assert untold == []
