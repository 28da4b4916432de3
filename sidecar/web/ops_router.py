"""Health, metrics and the status page beside the routes that take jobs, with what the OpenAPI document says of them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from sidecar.web.app import LeanRoute
from sidecar.web.ops import HEALTH, OpsRoutes

_SUMMARIES: Final = {
    "/startupz": ("Whether it has started", "200 when the listeners and the journal are up, else 503."),
    "/livez": ("Whether it lives", "200: the event loop turns."),
    "/readyz": (
        "Whether jobs are accepted",
        "200 while jobs are accepted, else 503 with the reason. `upstream` says whether there is a link to Faktory.",
    ),
    "/metrics": ("Metrics for Prometheus", "Text format of Prometheus; docs/metrics.md explains each."),
    "/status.json": ("What the status page shows", "The data of the page at `/`, as JSON without a promise to stay."),
}


def router(routes: OpsRoutes) -> APIRouter:
    """All of these routes."""
    found = APIRouter(route_class=LeanRoute, tags=["operations"])
    for path, endpoint in routes.endpoints.items():
        summary, description = _SUMMARIES.get(path, ("", ""))
        extra: dict[str, Any] | None = {"security": []} if path in HEALTH else None
        found.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            operation_id=path.strip("/").replace(".", "_").replace("/", "_") or "status_page",
            summary=summary,
            description=description,
            response_class=Response,
            include_in_schema=path in _SUMMARIES,
            openapi_extra=extra,
        )
    return found
