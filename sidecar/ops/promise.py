"""What `+OK` means right now, and the settings in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sidecar.config import Ack, Settings
from sidecar.config.declared import SETTINGS, value_text


class Promise(msgspec.Struct, frozen=True):
    """Where a job is by the time of its `+OK`.

    Args:
        text: what that survives.
        weak: a crash loses acknowledged jobs.
    """

    title: str
    text: str
    weak: bool = False


def promise(settings: Settings) -> Promise:
    """The promise of these settings."""
    if not settings.auto_batch:
        return Promise(
            "in Faktory, by its own word", "Each job is a PUSH of its own, and Faktory's reply is the reply."
        )
    match settings.ack:
        case Ack.DISK:
            return Promise(
                "fsynced in the journal",
                "The job survives kill -9, a crash of the system and a restart, for as long as the volume exists.",
            )
        case Ack.UPSTREAM:
            return Promise(
                "in Faktory, by its own word", "Nothing of ours can be lost. Without Faktory jobs are refused."
            )
        case Ack.MEMORY:
            return Promise(
                "held in memory only", "A crash, kill -9 or a power cut loses jobs that were acknowledged.", weak=True
            )


class SettingRow(msgspec.Struct, frozen=True):
    """One setting as it is in force; secrets as `***`. `changed`: it is not the default."""

    name: str
    value: str
    help: str
    changed: bool


def settings_in_force(settings: Settings) -> list[SettingRow]:
    """All settings, in the order in which they are declared."""
    return list(_rows(settings))


def _rows(settings: Settings) -> Iterator[SettingRow]:
    for setting in SETTINGS.values():
        value = _value(settings, setting.field)
        text = value_text(setting.name, value)
        changed = value is not None and text != setting.default_text
        yield SettingRow(setting.name, text if text is not None else "not set", setting.help, changed)


def _value(settings: Settings, field: str) -> Any:
    upstream = settings.upstream
    match field:
        case "upstream":
            return upstream.display
        case "upstream_password":
            return upstream.password
        case "upstream_tls_ca":
            return upstream.cafile
        case "upstream_tls_cert":
            return upstream.certfile
        case "upstream_tls_key":
            return upstream.keyfile
    return getattr(settings, field)
