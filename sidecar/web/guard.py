"""Who may speak to the HTTP edge: no page of a foreign web site, and only who knows the token where there is one.

Any page that a developer opens can send requests to `localhost`, and the routes here take JSON whatever its content
type says, so a browser asks for no permission first. Three things that a page can't forge tell it apart:

- `Host`, where only loopback is bound: a name that was rebound to 127.0.0.1 (DNS rebinding) is not ours: 421.
- `Origin`: sent with every cross-origin `POST`: 403 unless it is loopback or the very host that was asked.
- `Sec-Fetch-Site: cross-site`: 403, but for a link that somebody followed to a page of ours (no page can read what it
  opens so, nor put it into a frame).

Ports are ignored throughout, because port-forwards and container ports change them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from sidecar.config.values import literal_address
from sidecar.web.problems import Problem

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]*)?")
# Basic first: Chromium looks at the first challenge of a field alone, and would ask nobody for a password.
_CHALLENGE = 'Basic realm="faktory-sidecar", charset="UTF-8", Bearer realm="faktory-sidecar"'


class Guard:
    """The checks of one listener.

    Args:
        token: what a client must know, as bearer token or as the password of HTTP Basic; None for none.
        loopback: whether the listener is bound to loopback, so that `Host` must be loopback too.
    """

    def __init__(self, *, token: str | None, loopback: bool) -> None:
        self._token = token.encode() if token is not None else None
        self._loopback = loopback

    def check(self, headers: Mapping[bytes, bytes], *, open_to_all: bool = False) -> Problem | None:
        """Why a request with these header fields (small letters) is turned away, None when it is not.

        Args:
            open_to_all: the path needs no token.
        """
        host = headers.get(b"host")  # HTTP/1.0 may leave it out, browsers don't
        if self._loopback and host is not None and not _is_loopback(_host_of(host)):
            return Problem(421, "Host must be localhost, 127.0.0.1 or [::1]: this port answers on loopback only.")
        origin = headers.get(b"origin")
        if origin is not None and not _is_own(origin, host):
            return Problem(403, "Requests from pages of other web sites are not taken (Origin).")
        if headers.get(b"sec-fetch-site") == b"cross-site" and headers.get(b"sec-fetch-dest") != b"document":
            return Problem(403, "Requests from pages of other web sites are not taken (Sec-Fetch-Site).")
        if self._token is not None and not open_to_all and not self._knows_token(headers.get(b"authorization", b"")):
            return Problem(
                401,
                "Send SIDECAR_HTTP_TOKEN as bearer token, or as the password of HTTP Basic with any user name.",
                headers={"www-authenticate": _CHALLENGE},
            )
        return None

    def _knows_token(self, authorization: bytes) -> bool:
        assert self._token is not None
        return hmac.compare_digest(_credential(authorization), self._token)


def _credential(authorization: bytes) -> bytes:
    """The bearer token or the Basic password of an `Authorization` field, empty when it holds neither."""
    scheme, _, value = authorization.partition(b" ")
    value = value.strip()
    match scheme.lower():
        case b"bearer":
            return value
        case b"basic":
            try:
                return base64.b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                return b""
    return b""


@lru_cache(maxsize=256)
def _host_of(field: bytes) -> str:
    """The host of a `Host` field in small letters, without port and brackets; empty when it is none."""
    found = _HOST.fullmatch(field.decode("latin-1").lower())
    return found[1].strip("[]") if found is not None else ""


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    address = literal_address(host)
    return host == "localhost" if address is None else address.is_loopback


@lru_cache(maxsize=256)
def _is_own(origin: bytes, host: bytes | None) -> bool:
    """Whether an `Origin` is loopback or the host that was asked. `null` (a sandboxed or local page) is foreign."""
    try:
        parts = urlsplit(origin.decode("ascii"))
        name = parts.hostname
    except (UnicodeDecodeError, ValueError):
        return False
    if parts.scheme not in ("http", "https") or not name:
        return False
    return _is_loopback(name) or (host is not None and name == _host_of(host))
