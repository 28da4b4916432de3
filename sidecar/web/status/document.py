"""The page itself: HTML, style and script in one answer, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Final

FIRST: Final = "__FIRST__"
"""Where the page has its first data, so that it shows them before its script has asked for any."""


class Document:
    """The page, put together once from the files beside this module."""

    def __init__(self) -> None:
        place = files("sidecar.web.status")
        style, script, page = ((place / name).read_text("utf-8") for name in ("page.css", "page.js", "page.html"))
        whole = page.replace("__STYLE__", style).replace("__SCRIPT__", script)
        self._before, _, self._after = whole.partition(FIRST)
        self.headers: Final = {
            "content-security-policy": (
                f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; connect-src 'self'; "
                "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }

    def with_data(self, first: bytes) -> str:
        """The page with its first data, a JSON object; `<` in it can't end the element that holds it."""
        return self._before + first.decode().replace("<", "\\u003c") + self._after


def _digest(text: str) -> str:
    """How a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
