"""Asking a sidecar's HTTP endpoints as machines do."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from itertools import count
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.real.polling import wait_for
from tests.real.raw_client import RawClient
from tests.real.sidecar_command import SidecarProcess

Answer = tuple[int, dict[str, str], bytes]


def get(port: int, path: str, **headers: str) -> Answer:
    """Status, header fields (small letters) and body of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def health(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Status and facts of a health endpoint."""
    status, _, body = get(port, path)
    return status, json.loads(body)


def metrics(port: int) -> dict[str, float]:
    """All samples, by `name` or `name{label="value"}` with labels in alphabetical order."""
    status, _, body = get(port, "/metrics")
    assert status == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def metric(port: int, name: str, **labels: str) -> float:
    """One sample, without its prefix."""
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return metrics(port)[f"faktory_sidecar_{name}{{{inside}}}" if inside else f"faktory_sidecar_{name}"]


def ops_port(sidecar: SidecarProcess) -> int:
    """The port of SIDECAR_OPS_LISTEN."""
    return int(sidecar.wait_for_event("ops")["address"].rpartition(":")[2])


def wait_beside_others(client: RawClient, look: Callable[[], object], *, what: str) -> None:
    """Waits for something that happens to some jobs only while Faktory accepts others, which are pushed meanwhile."""
    numbers = count()

    def push_and_look() -> object:
        assert client.push({"jid": f"another-{next(numbers)}", "jobtype": "T", "args": []}) == "OK"
        return look()

    wait_for(push_and_look, what=what, timeout=30)
