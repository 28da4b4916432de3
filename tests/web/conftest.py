"""The HTTP edge, served by the real server on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
import trio

from sidecar.budget import Budget
from sidecar.config import Bind
from sidecar.intake import Intake
from sidecar.web.app import Application
from sidecar.web.server import bind, serve
from tests.web.serving import Answer, Client, RecordingIntake


@pytest.fixture
def intake() -> RecordingIntake:
    return RecordingIntake()


@pytest.fixture
async def port(intake: RecordingIntake, nursery: trio.Nursery) -> int:
    """The port of an edge without a token."""
    return await start(nursery, intake)


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        connected = await Client.connect(port)
        stack.push_async_callback(connected.aclose)
        yield connected


Post = Callable[..., Awaitable[Answer]]


@pytest.fixture
def post(client: Client) -> Post:
    """Sends a POST on the one connection: `await post("/jobs/add", {"a": 1, "b": 2})`."""

    async def send(path: str, body: Any, *headers: tuple[str, str]) -> Answer:
        return await client.request("POST", path, body, headers)

    return send


async def start(
    nursery: trio.Nursery,
    intake: RecordingIntake,
    *,
    token: str | None = None,
    where: Bind | None = None,
    **options: Any,
) -> int:
    """Serve an edge; returns its port."""
    application = Application(cast(Intake, intake), Budget(), token=token, **options)
    listeners = bind([where or Bind("127.0.0.1", 0)], application.edge, setting="SIDECAR_HTTP_LISTEN")
    addresses = await nursery.start(serve, listeners)
    port: int = addresses[0][1]
    return port
