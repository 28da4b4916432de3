"""Puts the HTTP edge together: routes, documentation, guard and bounds, one way in for each bind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

import trio
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import sidecar
from sidecar.web import docs, openapi
from sidecar.web.bounds import Bodies
from sidecar.web.edge import Edge, Endpoint, on_error, on_http_exception, on_problem
from sidecar.web.guard import Guard
from sidecar.web.jobs import JobRoutes
from sidecar.web.problems import Problem
from sidecar.web.server import bind, serve

if TYPE_CHECKING:
    from sidecar.budget import Budget
    from sidecar.config import Bind, Settings
    from sidecar.intake import Intake

_DESCRIPTION = (
    "Jobs for Faktory over HTTP, through the same journal and the same batches as the local Faktory endpoint. "
    "A content type is not asked for. All errors are problem details (RFC 9457)."
)


class LeanRoute(APIRoute):
    """A route whose endpoint takes the request and gives the response, without FastAPI's parsing in between."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The endpoint itself."""
        return self.endpoint


class Application:
    """The HTTP application; `edge` makes the way in for each bind.

    Args:
        intake: takes the jobs.
        budget: for the bodies.
        token: what clients must know, None for nothing.
        routers: further routes (health, metrics, the status page).
        open_paths: need no token where there is one.
    """

    def __init__(
        self,
        intake: Intake,
        budget: Budget,
        *,
        token: str | None,
        routers: Sequence[APIRouter] = (),
        open_paths: Container[str] = (),
    ) -> None:
        self._token = token
        self._open_paths = open_paths
        self._bodies = Bodies(budget)
        jobs = job_router(JobRoutes(intake))
        self._direct = _direct(jobs)
        self.framework = _framework([jobs, *routers])

    def edge(self, where: Bind) -> Edge:
        """What answers on a bind."""
        return Edge(
            guard=Guard(token=self._token, loopback=where.is_loopback),
            bodies=self._bodies,
            direct=self._direct,
            application=self.framework,
            open_paths=self._open_paths,
        )


def _framework(routers: Sequence[APIRouter]) -> FastAPI:
    """FastAPI with the routes, our documentation pages and problem documents for all errors."""
    framework = FastAPI(
        title="faktory-sidecar",
        version=sidecar.__version__,
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={Problem: on_problem, HTTPException: on_http_exception, Exception: on_error},
    )
    for router in routers:
        framework.include_router(router)
    document = framework.openapi()
    document["components"] = {"schemas": openapi.SCHEMAS, "securitySchemes": openapi.SECURITY_SCHEMES}
    document["security"] = openapi.SECURITY
    framework.include_router(docs.router(document))
    return framework


def job_router(routes: JobRoutes) -> APIRouter:
    """The routes that take jobs, with what the OpenAPI document says about them."""
    router = APIRouter(route_class=LeanRoute, tags=["jobs"])
    router.add_api_route(
        "/jobs/batch",
        routes.batch,
        methods=["POST"],
        operation_id="enqueue_batch",
        summary="Enqueue many jobs in one request",
        description="All jobs are valid or none is enqueued. They leave for Faktory at once, in as few batches as fit.",
        response_class=Response,
        openapi_extra=openapi.BATCH_BODY,
        responses=openapi.BATCH_ANSWERS,
    )
    for jobtype in ("Add", "Subtract", "Multiply", "Divide"):
        router.add_api_route(
            f"/jobs/{jobtype.lower()}",
            _operation(routes, jobtype),
            methods=["POST"],
            operation_id=f"enqueue_{jobtype.lower()}",
            summary=f"Enqueue one {jobtype} job",
            description="The body is the job's one argument. Jobs of many requests leave in batches by themselves.",
            response_class=Response,
            openapi_extra=openapi.OPERANDS_BODY,
            responses=openapi.operation_answers(jobtype),
        )
    router.add_api_route(
        "/jobs",
        routes.single,
        methods=["POST"],
        operation_id="enqueue_job",
        summary="Enqueue one job of any type",
        description="The body is a job with any field of the Faktory Work Protocol.",
        response_class=Response,
        openapi_extra=openapi.JOB_BODY,
        responses=openapi.JOB_ANSWERS,
    )
    return router


def _operation(routes: JobRoutes, jobtype: str) -> Callable[[Request], Awaitable[Response]]:
    async def operation(request: Request) -> Response:
        return await routes.operation(jobtype, request)

    return operation


def _direct(router: APIRouter) -> dict[tuple[str, str], Endpoint]:
    """The endpoints of a router of lean routes, by method and path."""
    return {
        (method, route.path): route.endpoint
        for route in router.routes
        if isinstance(route, LeanRoute)
        for method in route.methods or ()
    }


async def serve_http(
    settings: Settings,
    intake: Intake,
    budget: Budget,
    *,
    routers: Sequence[APIRouter] = (),
    open_paths: Container[str] = (),
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on `settings.http_listen` until cancelled; answers that are being made then are finished.

    Args:
        routers: further routes beside those that take jobs.
        open_paths: need no token where there is one.
        task_status: told the addresses that are listening, with real ports.

    Raises:
        StartError: an address can't be bound.
    """
    token = settings.http_token.reveal() if settings.http_token is not None else None
    application = Application(intake, budget, token=token, routers=routers, open_paths=open_paths)
    listeners = bind(settings.http_listen, application.edge, setting="SIDECAR_HTTP_LISTEN")
    await serve(listeners, task_status=task_status)
