"""`faktory-sidecar healthcheck`: whether the sidecar with these settings is well, for images without curl."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from typing import Final

import click

from sidecar.cli.options import given_flags, settings_options
from sidecar.config import Bind, Settings, load
from sidecar.errors import StartError

PATHS: Final = {"live": "/livez", "ready": "/readyz", "started": "/startupz"}
DEFAULT_TIMEOUT: Final = 3.0  # s; container runtimes give a check 30 s or less
GREETING: Final = b"+HI "
READ_BYTES: Final = 4096


@click.command("healthcheck")
@click.option("--ready", "question", flag_value="ready", help="Whether jobs are accepted.")
@click.option("--started", "question", flag_value="started", help="Whether it has started.")
@click.option("--live", "question", flag_value="live", default="live", help="Whether it answers at all (default).")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=DEFAULT_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait, 0.1-60.",
)
@settings_options
@click.pass_context
def command(context: click.Context, question: str, timeout: float) -> int:
    """Ask the sidecar that runs with these settings: exit code 0 when it is well, 1 when not.

    Over HTTP where it is on, else by the greeting of the local Faktory endpoint.
    """
    settings = load(os.environ, given_flags(context)).settings
    try:
        if binds := settings.http_listen or settings.ops_listen:
            _ask_http(binds[0], PATHS[question], settings, timeout)
        else:
            _ask_faktory(settings, timeout)
    except (OSError, http.client.HTTPException) as error:
        raise StartError(f"not well: {_reason(error)}") from error
    return 0


def _reason(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error) or "no answer").lower()


def _ask_http(bind: Bind, path: str, settings: Settings, timeout: float) -> None:
    connection = http.client.HTTPConnection(_reachable_host(bind), bind.port, timeout=timeout)
    token = settings.http_token
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token.reveal()}"})
        response = connection.getresponse()
        body = response.read(READ_BYTES).decode(errors="replace").strip()
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise StartError(f"not well: {path} answered {response.status} {' '.join(body.split())}".rstrip())


def _ask_faktory(settings: Settings, timeout: float) -> None:
    """The greeting is enough: it comes from the event loop, and takes no password."""
    bind = settings.listen[0]
    with socket.create_connection((_reachable_host(bind), bind.port), timeout) as plain:
        greeting = _greeting(plain, encrypted=settings.listen_tls_cert is not None)
    if not greeting.startswith(GREETING):
        raise StartError(f"not well: {bind} gave no Faktory greeting")


def _greeting(plain: socket.socket, *, encrypted: bool) -> bytes:
    if not encrypted:
        return plain.recv(READ_BYTES)
    context = ssl.create_default_context()
    context.check_hostname = False  # it is our own endpoint, and nothing is told to it
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain) as stream:
        return stream.recv(READ_BYTES)


def _reachable_host(bind: Bind) -> str:
    if bind.is_wildcard:
        return "::1" if ":" in bind.host else "127.0.0.1"
    return bind.hosts[0]
