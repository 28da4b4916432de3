"""Every setting, declared once: its name, default, meaning and parser.

The environment, the flags, `--help` and `check` all follow from this table. Flags are named after the setting,
without `SIDECAR_`, in kebab case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sidecar.config import parsing as p
from sidecar.config.values import Ack, Bind, LogFormat, LogLevel, Secret, UpstreamAddress

DEFAULT_ACK: Final = Ack.DISK
DEFAULT_BATCH_MAX_SIZE: Final = 100

BATCH_SIZES: Final = (1, 10_000)  # jobs
MAX_DELAY_MS: Final = 60_000
BATCH_BYTES: Final = (1 * p.KIB, 64 * p.MIB)
JOURNAL_BYTES: Final = (64 * p.MIB, 16 * p.TIB)  # the least holds the 16 MiB reserve, a 16 MiB WAL and jobs
MEMORY_BYTES: Final = (1 * p.MIB, 64 * p.GIB)
PIPELINE_DEPTHS: Final = (1, 1_000)  # batches in flight
MAX_DRAIN_S: Final = 86_400

_SECRET: Final[dict[str, Any]] = {"secret": True}


class TextSource(PydanticBaseSettingsSource):
    """One place that settings come from: a mapping of setting name to text, given by the caller."""

    def __init__(self, settings_cls: type[BaseSettings], texts: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._texts = texts

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        name = field.alias or field_name
        return self._texts.get(name), name, False

    def __call__(self) -> dict[str, Any]:
        found = (self.get_field_value(info, name) for name, info in self.settings_cls.model_fields.items())
        return {name: text for text, name, _ in found if text is not None}


class Declared(BaseSettings):
    """The settings one by one, before they are checked against each other.

    Made from `Declared(flags=..., environment=...)`, mappings of setting name to text; flags win.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=True, validate_default=False)

    upstream: Annotated[UpstreamAddress | None, PlainValidator(p.upstream)] = Field(
        None,
        alias="SIDECAR_UPSTREAM",
        description="The real Faktory, tcp://:password@host:7419 or tcp+tls://...; else what FAKTORY_PROVIDER names, "
        "else FAKTORY_URL.",
        json_schema_extra=_SECRET,
    )
    upstream_password: Annotated[Secret | None, PlainValidator(p.secret)] = Field(
        None,
        alias="SIDECAR_UPSTREAM_PASSWORD",
        description="The real Faktory's password; else the URL's.",
        json_schema_extra=_SECRET,
    )
    upstream_tls_ca: Annotated[Path | None, PlainValidator(p.readable_file)] = Field(
        None, alias="SIDECAR_UPSTREAM_TLS_CA", description="A private CA (PEM) for upstream's certificate."
    )
    upstream_tls_cert: Annotated[Path | None, PlainValidator(p.readable_file)] = Field(
        None, alias="SIDECAR_UPSTREAM_TLS_CERT", description="Client certificate (PEM) for upstream."
    )
    upstream_tls_key: Annotated[Path | None, PlainValidator(p.readable_file)] = Field(
        None, alias="SIDECAR_UPSTREAM_TLS_KEY", description="Its key (PEM)."
    )
    listen: Annotated[tuple[Bind, ...], PlainValidator(p.binds)] = Field(
        p.binds("localhost:7419"),
        alias="SIDECAR_LISTEN",
        description="The local Faktory endpoint, HOST:PORT[,HOST:PORT]; localhost is both loopbacks.",
    )
    listen_password: Annotated[Secret | None, PlainValidator(p.secret)] = Field(
        None,
        alias="SIDECAR_LISTEN_PASSWORD",
        description="What local clients must know; demanded beyond loopback.",
        json_schema_extra=_SECRET,
    )
    listen_tls_cert: Annotated[Path | None, PlainValidator(p.readable_file)] = Field(
        None, alias="SIDECAR_LISTEN_TLS_CERT", description="Certificate (PEM): TLS for the local endpoint."
    )
    listen_tls_key: Annotated[Path | None, PlainValidator(p.readable_file)] = Field(
        None, alias="SIDECAR_LISTEN_TLS_KEY", description="Its key (PEM)."
    )
    http_listen: Annotated[tuple[Bind, ...], PlainValidator(p.binds_or_off)] = Field(
        p.binds("localhost:3000"),
        alias="SIDECAR_HTTP_LISTEN",
        description="Jobs over HTTP, docs, status page, health, metrics; or off.",
    )
    http_token: Annotated[Secret | None, PlainValidator(p.secret)] = Field(
        None,
        alias="SIDECAR_HTTP_TOKEN",
        description="Bearer token of the HTTP endpoint; demanded beyond loopback.",
        json_schema_extra=_SECRET,
    )
    ops_listen: Annotated[tuple[Bind, ...], PlainValidator(p.binds_or_off)] = Field(
        (),
        alias="SIDECAR_OPS_LISTEN",
        description="A second bind with only health, metrics and the read-only status; or off.",
    )
    ack: Annotated[Ack, PlainValidator(p.one_of(Ack))] = Field(
        DEFAULT_ACK,
        alias="SIDECAR_ACK",
        description="Where a job is by the time of its +OK: disk, upstream or memory.",
    )
    journal_dir: Annotated[Path | None, PlainValidator(p.directory)] = Field(
        None,
        alias="SIDECAR_JOURNAL_DIR",
        description="The journal's directory; else faktory-sidecar/HOST_PORT in the user's state directory.",
    )
    journal_max_bytes: Annotated[int, PlainValidator(p.size(*JOURNAL_BYTES))] = Field(
        1 * p.GIB, alias="SIDECAR_JOURNAL_MAX_BYTES", description="Bound of the journal on disk."
    )
    memory_max_bytes: Annotated[int, PlainValidator(p.size(*MEMORY_BYTES))] = Field(
        64 * p.MIB, alias="SIDECAR_MEMORY_MAX_BYTES", description="Bound of the jobs held in memory."
    )
    pipeline_depth: Annotated[int, PlainValidator(p.whole(*PIPELINE_DEPTHS))] = Field(
        64, alias="SIDECAR_PIPELINE_DEPTH", description="Batches in flight, 1-1,000."
    )
    drain_timeout: Annotated[float, PlainValidator(p.seconds(MAX_DRAIN_S))] = Field(
        25.0, alias="SIDECAR_DRAIN_TIMEOUT_S", description="Longest drain at the stop, in seconds."
    )
    log_level: Annotated[LogLevel, PlainValidator(p.one_of(LogLevel))] = Field(
        LogLevel.INFO, alias="SIDECAR_LOG_LEVEL", description="debug, info, warning or error."
    )
    log_format: Annotated[LogFormat, PlainValidator(p.one_of(LogFormat))] = Field(
        LogFormat.AUTO,
        alias="SIDECAR_LOG_FORMAT",
        description="console, json, or auto: console on a terminal, else json.",
    )
    batch_max_size: Annotated[int, PlainValidator(p.whole(*BATCH_SIZES))] = Field(
        DEFAULT_BATCH_MAX_SIZE, alias="BATCH_MAX_SIZE", description="Jobs in a batch, 1-10,000."
    )
    batch_max_delay: Annotated[float, PlainValidator(p.milliseconds(MAX_DELAY_MS))] = Field(
        0.05,
        alias="BATCH_MAX_DELAY_MS",
        description="Longest wait of a batch's first job, 0-60,000 ms.",
    )
    batch_max_bytes: Annotated[int, PlainValidator(p.size(*BATCH_BYTES))] = Field(
        1 * p.MIB, alias="BATCH_MAX_BYTES", description="Bytes in a batch; a larger job travels alone."
    )
    auto_batch: Annotated[bool, PlainValidator(p.boolean)] = Field(
        True, alias="BATCH_AUTO_ENABLED", description="false: each job is sent by itself, at once."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before the environment, both as the caller gave them; nothing is read behind its back."""
        assert isinstance(init_settings, InitSettingsSource)
        given = init_settings.init_kwargs
        return TextSource(settings_cls, given["flags"]), TextSource(settings_cls, given["environment"])


@dataclass(frozen=True, slots=True)
class Setting:
    """What there is to say of one setting.

    Args:
        name: as in the environment, `SIDECAR_ACK`.
        field: its attribute in `Declared`.
        is_secret: its value is never shown, and it can come from a file that `NAME_FILE` names.
        default: the value without any setting, None where it depends on others.
    """

    name: str
    field: str
    help: str
    is_secret: bool
    default: object

    @property
    def flag(self) -> str:
        """`--ack` for `SIDECAR_ACK`, `--batch-max-size` for `BATCH_MAX_SIZE`."""
        return "--" + self.name.removeprefix("SIDECAR_").lower().replace("_", "-")

    @property
    def default_text(self) -> str | None:
        """The default as one would write it."""
        return value_text(self.name, self.default)


def value_text(name: str, value: object) -> str | None:
    """A setting's value as one would write it, None for none; secrets stay hidden."""
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value)) or "off"
        case int() if name.endswith("_BYTES"):
            return p.size_text(value)
        case float() if name.endswith("_MS"):
            return f"{value * 1000:g}"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _settings() -> Iterator[Setting]:
    for field, info in Declared.model_fields.items():
        assert info.alias is not None
        assert info.description is not None
        yield Setting(info.alias, field, info.description, bool(info.json_schema_extra), info.default)


SETTINGS: Final[Mapping[str, Setting]] = {setting.name: setting for setting in _settings()}
