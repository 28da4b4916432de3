"""What an operator asks over HTTP: health, metrics, the status page. Read-only.

| path | answers |
| --- | --- |
| `/startupz` | 200 when the listeners and the journal are up, never waiting for upstream; else 503 |
| `/livez` | 200: the event loop turns |
| `/readyz` | 200 while jobs are accepted, else 503 with the reason; upstream is a fact beside it |
| `/metrics` | Prometheus |
| `/`, `/status.json`, `/status/events` | the status page, its data, and its data as they change |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sidecar.ops.exposition import CONTENT_TYPE, Exposition
from sidecar.ops.findings import findings
from sidecar.web.bounds import Bodies
from sidecar.web.edge import Edge
from sidecar.web.guard import Guard
from sidecar.web.problems import Problem
from sidecar.web.status.broadcast import MAX_VIEWERS, Broadcast
from sidecar.web.status.document import Document
from sidecar.web.status.events import EventStream

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from sidecar.budget import Budget
    from sidecar.config import Bind
    from sidecar.ops.facts import Facts, Gauge

HEALTH: Final = frozenset({"/startupz", "/livez", "/readyz"})
"""Asked by machines that can't know a token, and telling nothing that is worth one."""

_NO_STORE: Final = {"cache-control": "no-store"}


class Health(msgspec.Struct, frozen=True):
    """What the three health endpoints answer.

    Args:
        status: `ok`, or what is not.
        reason: why jobs are not accepted.
        upstream: `up` or `down`; for readiness only a fact.
        findings: what else is so, the gravest first, by the names of `faktory_sidecar_condition`.
    """

    status: str
    reason: str | None
    upstream: str
    upstream_reason: str | None
    waiting_jobs: int
    oldest_job_seconds: float
    dead_letters: int
    findings: list[str]


class OpsRoutes:
    """The endpoints, for one sidecar."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._exposition = Exposition(gauge)
        self._broadcast = Broadcast(gauge)
        self._document = Document()

    @property
    def endpoints(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        """All of them by path; each takes GET."""
        return {
            "/startupz": self.startupz,
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/": self.page,
            "/status.json": self.status,
            "/status/events": self.events,
        }

    async def startupz(self, _request: Request) -> Response:
        """Whether it has started."""
        return self._health("ok" if self._gauge.started else "starting", self._gauge.read())

    async def livez(self, _request: Request) -> Response:
        """That it lives: the event loop came round to this answer."""
        return self._health("ok", self._gauge.read())

    async def readyz(self, _request: Request) -> Response:
        """Whether jobs are accepted."""
        facts = self._gauge.read()
        return self._health("ok" if facts.refusal is None else "refusing", facts)

    async def metrics(self, _request: Request) -> Response:
        """All metrics."""
        return Response(self._exposition.text(), headers={"content-type": CONTENT_TYPE, **_NO_STORE})

    async def page(self, _request: Request) -> Response:
        """The status page, with its first data."""
        html = self._document.with_data(await self._broadcast.everything())
        return Response(html, media_type="text/html", headers=self._document.headers)

    async def status(self, _request: Request) -> Response:
        """The status page's data, once."""
        return Response(await self._broadcast.everything(), media_type="application/json", headers=_NO_STORE)

    async def events(self, _request: Request) -> Response:
        """The status page's data, as they change.

        Raises:
            Problem: 503, too many look already.
        """
        if self._broadcast.viewers >= MAX_VIEWERS:
            detail = f"{MAX_VIEWERS} status pages are open already; /status.json has the same data once."
            raise Problem(503, detail, headers={"retry-after": "60"})
        return EventStream(self._broadcast.stream())

    def _health(self, status: str, facts: Facts) -> Response:
        answer = Health(
            status=status,
            reason=facts.refusal,
            upstream="up" if facts.link.up else "down",
            upstream_reason=facts.link.reason,
            waiting_jobs=facts.waiting,
            oldest_job_seconds=round(facts.oldest, 3),
            dead_letters=facts.dead,
            findings=[str(finding.condition) for finding in findings(facts)],
        )
        code = 200 if status == "ok" else 503
        return Response(msgspec.json.encode(answer), code, _NO_STORE, "application/json")


class OpsApplication:
    """The endpoints alone, for `SIDECAR_OPS_LISTEN`: no jobs, no documentation, no token.

    A kubelet and most Prometheus set-ups can't send one, and nothing here changes anything.
    """

    def __init__(self, routes: OpsRoutes, budget: Budget) -> None:
        self._endpoints = routes.endpoints
        self._bodies = Bodies(budget)

    def edge(self, where: Bind) -> Edge:
        """What answers on a bind."""
        return Edge(
            guard=Guard(token=None, loopback=where.is_loopback), bodies=self._bodies, direct={}, application=self
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._answer(Request(scope, receive))
        except Problem as problem:
            response = problem.response()
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        endpoint = self._endpoints.get(request.url.path)
        if endpoint is None:
            raise Problem(404, f"There is nothing at this path, only {', '.join(self._endpoints)}.")
        if request.method != "GET":
            raise Problem(405, "This path takes GET, HEAD.", headers={"allow": "GET, HEAD"})
        return await endpoint(request)
