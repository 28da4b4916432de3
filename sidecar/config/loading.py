"""Texts in, checked settings out, or every mistake at once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from sidecar.config import gathering, tls
from sidecar.config.addresses import Resolve, conflicts, resolve_quickly, same_endpoint
from sidecar.config.declared import SETTINGS, Declared
from sidecar.config.gathering import Gathered
from sidecar.config.values import Settings, UpstreamAddress
from sidecar.errors import StartError

NO_UPSTREAM: Final = (
    "no upstream: set SIDECAR_UPSTREAM=tcp://:password@host:7419 (or FAKTORY_PROVIDER, FAKTORY_URL, --upstream); "
    "`faktory-sidecar demo` needs none"
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each came from, and what was odd.

    Args:
        sources: setting name -> `environment NAME`, `flag --name` or `default`.
        warnings: one sentence each.
    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...]


def load(environ: Mapping[str, str], flags: Mapping[str, str], *, resolve: Resolve = resolve_quickly) -> Loaded:
    """The settings of an environment and a command line.

    Args:
        flags: setting name (`SIDECAR_ACK`, `SIDECAR_LISTEN_PASSWORD_FILE`) -> text; they win.
        resolve: addresses of a host name; nothing for an unknown one.

    Raises:
        StartError: exit code 2, a line for each setting that is wrong.
    """
    flagged = gathering.from_flags(flags)
    environment = gathering.from_environment(environ, overridden=flagged.sources.keys())
    problems = [*flagged.problems, *environment.problems]
    sources = dict.fromkeys(SETTINGS, "default") | environment.sources | flagged.sources
    declared = _declare(flagged, environment, sources, problems)
    if declared is None or problems:
        raise _stop(problems)
    if declared.upstream is None:
        raise _stop([NO_UPSTREAM])
    if declared.upstream_password is None and declared.upstream.password is not None:
        sources["SIDECAR_UPSTREAM_PASSWORD"] = sources["SIDECAR_UPSTREAM"]
    settings = _combined(declared, declared.upstream, environ)
    problems += _cross_checked(settings, sources, resolve)
    if problems:
        raise _stop(problems)
    return Loaded(settings, sources, tuple(gathering.unknown_names(environ)))


def _stop(problems: list[str]) -> StartError:
    return StartError("\n".join(problems), exit_code=2)


def _declare(
    flagged: Gathered, environment: Gathered, sources: Mapping[str, str], problems: list[str]
) -> Declared | None:
    """Parse each text; a line in `problems` for each that is wrong, and for a missing upstream beside them."""
    given: dict[str, Any] = {"flags": flagged.texts, "environment": environment.texts}
    try:
        return Declared(**given)
    except ValidationError as error:
        for wrong in error.errors(include_url=False, include_input=False):
            setting = SETTINGS[str(wrong["loc"][0])]
            text = (environment.texts | flagged.texts)[setting.name]
            name = sources[setting.name].partition(" ")[2]
            allowed = wrong["ctx"]["error"]
            problems.append(f"{name} is {gathering.shown(setting, text)}: {allowed}")
    if sources["SIDECAR_UPSTREAM"] == "default":
        problems.append(NO_UPSTREAM)
    return None


def _combined(declared: Declared, upstream: UpstreamAddress, environ: Mapping[str, str]) -> Settings:
    address = replace(
        upstream,
        password=declared.upstream_password or upstream.password,
        cafile=declared.upstream_tls_ca,
        certfile=declared.upstream_tls_cert,
        keyfile=declared.upstream_tls_key,
    )
    return Settings(
        upstream=address,
        listen=declared.listen,
        listen_password=declared.listen_password,
        listen_tls_cert=declared.listen_tls_cert,
        listen_tls_key=declared.listen_tls_key,
        http_listen=declared.http_listen,
        http_token=declared.http_token,
        ops_listen=declared.ops_listen,
        ack=declared.ack,
        journal_dir=declared.journal_dir or default_journal_dir(address, environ),
        journal_max_bytes=declared.journal_max_bytes,
        memory_max_bytes=declared.memory_max_bytes,
        pipeline_depth=declared.pipeline_depth,
        drain_timeout=declared.drain_timeout,
        log_level=declared.log_level,
        log_format=declared.log_format,
        batch_max_size=declared.batch_max_size,
        batch_max_delay=declared.batch_max_delay,
        batch_max_bytes=declared.batch_max_bytes,
        auto_batch=declared.auto_batch,
    )


def default_journal_dir(upstream: UpstreamAddress, environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """`faktory-sidecar/HOST_PORT` in the user's state directory: XDG's, on macOS Application Support.

    Raises:
        StartError: exit code 2, the user has no home directory.
    """
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        raise StartError("no home directory for the journal: set SIDECAR_JOURNAL_DIR", exit_code=2) from None
    if not gathering.is_text(f"{home}{environ.get('XDG_STATE_HOME', '')}"):
        raise StartError("the home directory's name is not UTF-8: set SIDECAR_JOURNAL_DIR", exit_code=2)
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():  # the specification has relative ones ignored
        state = xdg
    elif platform == "darwin":
        state = home / "Library" / "Application Support"
    else:
        state = home / ".local" / "state"
    host = upstream.host.replace(":", "-").replace("%", "-")
    return state.absolute() / "faktory-sidecar" / f"{host}_{upstream.port}"


def _cross_checked(settings: Settings, sources: Mapping[str, str], resolve: Resolve) -> list[str]:
    """What no setting shows by itself: a line for each combination that is refused."""
    return [
        *_exposed(settings),
        *_modes(settings, sources),
        *_tls(settings),
        *_endpoints(settings, sources, resolve),
    ]


def _exposed(settings: Settings) -> list[str]:
    """Addresses that others can reach demand a secret."""
    problems = []
    for name, binds, secret, needs in (
        ("SIDECAR_LISTEN", settings.listen, settings.listen_password, "SIDECAR_LISTEN_PASSWORD"),
        ("SIDECAR_HTTP_LISTEN", settings.http_listen, settings.http_token, "SIDECAR_HTTP_TOKEN"),
    ):
        open_to_all = [str(bind) for bind in binds if not bind.is_loopback]
        if open_to_all and secret is None:
            problems.append(
                f"{name} is {', '.join(open_to_all)!r}: an address beyond loopback demands {needs}; "
                "expected that, or localhost:PORT"
            )
    return problems


def _modes(settings: Settings, sources: Mapping[str, str]) -> list[str]:
    given = sources["SIDECAR_ACK"].partition(" ")[2]
    if settings.auto_batch or not given:
        return []
    return [
        f"{given} is {settings.ack.value!r} beside BATCH_AUTO_ENABLED=false, which makes upstream's reply the reply: "
        "expected only one of the two"
    ]


def _tls(settings: Settings) -> list[str]:
    """Certificates that can't be used, or wouldn't be."""
    upstream, problems = settings.upstream, []
    files = (("_CA", upstream.cafile), ("_CERT", upstream.certfile), ("_KEY", upstream.keyfile))
    given = [f"SIDECAR_UPSTREAM_TLS{suffix}" for suffix, file in files if file is not None]
    if given and not upstream.tls:
        problems.append(f"{', '.join(given)}: upstream is {upstream.display}, without TLS; expected tcp+tls://")
    elif upstream.keyfile is not None and upstream.certfile is None:
        problems.append("SIDECAR_UPSTREAM_TLS_KEY: expected SIDECAR_UPSTREAM_TLS_CERT beside it")
    elif upstream.tls:
        try:
            tls.upstream_context(upstream)
        except ValueError as error:
            problems.append(f"{' and '.join(given)}: {error}")
    if settings.listen_tls_cert is not None:
        try:
            tls.listen_context(settings.listen_tls_cert, settings.listen_tls_key)
        except ValueError as error:
            problems.append(f"SIDECAR_LISTEN_TLS_CERT: {error}")
    elif settings.listen_tls_key is not None:
        problems.append("SIDECAR_LISTEN_TLS_KEY: expected SIDECAR_LISTEN_TLS_CERT beside it")
    return problems


def _endpoints(settings: Settings, sources: Mapping[str, str], resolve: Resolve) -> list[str]:
    """The sidecar as its own upstream, and one address wanted twice."""
    problems = []
    for name, binds in (("SIDECAR_LISTEN", settings.listen), ("SIDECAR_HTTP_LISTEN", settings.http_listen)):
        for bind in binds:
            if same_endpoint(bind, settings.upstream, resolve):
                where = sources["SIDECAR_UPSTREAM"].partition(" ")[2]
                problems.append(
                    f"{where} is {settings.upstream.display!r}: that is the sidecar itself ({name} is {str(bind)!r}); "
                    "expected the real Faktory"
                )
    wanted = (
        ("SIDECAR_LISTEN", settings.listen),
        ("SIDECAR_HTTP_LISTEN", settings.http_listen),
        ("SIDECAR_OPS_LISTEN", settings.ops_listen),
    )
    return problems + [
        f"{first} and {second} both want {bind}: expected different ports" for first, second, bind in conflicts(wanted)
    ]
