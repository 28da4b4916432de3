"""The settings: declared once, read from flags and environment, checked, frozen.

`load` is the way in; everything else in the product takes the `Settings` it gives.
"""

from sidecar.config.declared import DEFAULT_ACK, SETTINGS, Setting
from sidecar.config.loading import NO_UPSTREAM, Loaded, load
from sidecar.config.parsing import size_text
from sidecar.config.tls import listen_context, upstream_context
from sidecar.config.values import (
    Ack,
    Bind,
    LogFormat,
    LogLevel,
    Secret,
    Settings,
    UpstreamAddress,
    host_port,
)

__all__ = [
    "DEFAULT_ACK",
    "NO_UPSTREAM",
    "SETTINGS",
    "Ack",
    "Bind",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "Secret",
    "Setting",
    "Settings",
    "UpstreamAddress",
    "host_port",
    "listen_context",
    "load",
    "size_text",
    "upstream_context",
]
