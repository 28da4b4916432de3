"""The page itself: HTML, style and script in one answer, and a policy that lets nothing else in."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from sidecar.web.policy import page_headers

FIRST: Final = "__FIRST__"
"""Where the page has its first data, so that it shows them before its script has asked for any."""


class Document:
    """The page, put together once from the files beside this module."""

    def __init__(self) -> None:
        place = files("sidecar.web.status")
        style, script, page = ((place / name).read_text("utf-8") for name in ("page.css", "page.js", "page.html"))
        whole = page.replace("__STYLE__", style).replace("__SCRIPT__", script)
        self._before, _, self._after = whole.partition(FIRST)
        self.headers: Final = page_headers(style, script, images=True, cache="no-store")

    def with_data(self, first: bytes) -> str:
        """The page with its first data, a JSON object; `<` in it can't end the element that holds it."""
        return self._before + first.decode().replace("<", "\\u003c") + self._after
