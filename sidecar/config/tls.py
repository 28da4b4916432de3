"""TLS contexts from settings: towards upstream, and for the local endpoint."""

from __future__ import annotations

import ssl
from pathlib import Path

from sidecar.config.values import UpstreamAddress


def upstream_context(address: UpstreamAddress) -> ssl.SSLContext:
    """The client side towards upstream: its certificate and name are always verified.

    Raises:
        ValueError: a file holds no usable certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=address.cafile)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{address.cafile} holds no usable certificate: {_reason(error)}") from error
    if address.certfile is not None:
        _load(context, address.certfile, address.keyfile)
    return context


def listen_context(certfile: Path, keyfile: Path | None) -> ssl.SSLContext:
    """The server side of the local endpoint.

    Raises:
        ValueError: the files are no certificate with its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, certfile, keyfile)
    return context


def _load(context: ssl.SSLContext, certfile: Path, keyfile: Path | None) -> None:
    """Without a key file the key is looked for beside the certificate; an encrypted key is refused, not asked for."""
    try:
        context.load_cert_chain(certfile, keyfile, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        files = f"{certfile} and {keyfile} are" if keyfile else f"{certfile} is"
        raise ValueError(f"{files} no certificate with its own, unencrypted key: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """What OpenSSL or the system calls it, without source positions."""
    reason = getattr(error, "reason", None) or error.strerror or "unusable"
    return str(reason).lower().replace("_", " ")
