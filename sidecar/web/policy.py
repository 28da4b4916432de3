"""What browsers are told about our pages: their own style and script, and nothing else."""

from __future__ import annotations

import base64
import hashlib


def page_headers(style: str, script: str, *, images: bool = False, cache: str = "no-cache") -> dict[str, str]:
    """The headers of a page with one inline style and script.

    Args:
        images: it shows images that stand in it.
        cache: for `Cache-Control`.
    """
    policy = [
        "default-src 'none'",
        f"style-src {_digest(style)}",
        f"script-src {_digest(script)}",
        "connect-src 'self'",
        *(["img-src data:"] if images else []),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": cache,
    }


def _digest(text: str) -> str:
    """How a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
