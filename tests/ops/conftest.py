"""A browser for the tests of the status page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.conftest import require
from tests.ops.browser import browser


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Debian's Chromium."""
    return require("chromium")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own checker of rules."""
    return require("promtool")


@pytest.fixture(scope="module")
def chrome(chromium: Path) -> Iterator[Browser]:
    """A running browser, for all tests of a module."""
    with browser(chromium) as running:
        yield running
