"""What the tests of the HTTP edge speak to and with: an intake that remembers, a client that shows everything."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

from sidecar.errors import Refusal
from sidecar.protocol.jobs import Job


class RecordingIntake:
    """Takes jobs as the real intake does, and keeps them for the test to look at.

    Args:
        judge: the verdicts for a request's jobs; raises a Refusal when none is taken.
    """

    def __init__(self, judge: Callable[[Sequence[Job]], list[Refusal | None]] | None = None) -> None:
        self.judge = judge
        self.jobs: list[Job] = []
        self.requests: list[tuple[int, bool]] = []
        self.origins = 0

    def origin(self, wid: str = "") -> object:
        self.origins += 1
        return object()

    def refusal_reason(self) -> str | None:
        return None

    async def take(self, jobs: Sequence[Job], origin: object, *, linger: bool = True) -> list[Refusal | None]:
        await trio.lowlevel.checkpoint()
        self.requests.append((len(jobs), linger))
        verdicts: list[Refusal | None] = [None] * len(jobs) if self.judge is None else self.judge(jobs)
        self.jobs += [job for job, verdict in zip(jobs, verdicts, strict=True) if verdict is None]
        return verdicts

    @property
    def payloads(self) -> list[dict[str, Any]]:
        """The jobs that were taken, decoded."""
        return [json.loads(job.payload) for job in self.jobs]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    repeated: list[tuple[str, str]] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self) -> dict[str, Any]:
        """The problem document, checked for its shape."""
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = self.json()
        assert document["status"] == self.status
        assert document["type"] == "about:blank"
        assert document["title"]
        assert document["detail"]
        return document


class Client:
    """One keep-alive connection to the HTTP edge."""

    def __init__(self, stream: trio.SocketStream, port: int) -> None:
        self.stream = stream
        self.port = port
        self._h11 = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(await trio.open_tcp_stream("127.0.0.1", port), port)

    async def request(
        self, method: str, path: str, body: bytes | str | object = b"", headers: Sequence[tuple[str, str]] = ()
    ) -> Answer:
        """Ask and wait for the answer. A body that is neither bytes nor text is sent as JSON."""
        raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        given = {name.lower() for name, _ in headers}
        fields = [(name, value) for name, value in headers if value]
        if "host" not in given:
            fields.append(("host", f"localhost:{self.port}"))
        if raw and not given & {"content-length", "transfer-encoding"}:
            fields.append(("content-length", str(len(raw))))
        data = self._h11.send(h11.Request(method=method, target=path, headers=fields)) or b""
        if raw:
            data += self._h11.send(h11.Data(data=raw)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)
        answer = await self.answer()
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return answer

    async def answer(self) -> Answer:
        """The next answer on this connection."""
        return await _answer(self._h11, self.stream)

    async def aclose(self) -> None:
        await self.stream.aclose()


async def _answer(connection: h11.Connection, stream: trio.SocketStream) -> Answer:
    response: h11.Response | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert response is not None
            fields = [(name.decode(), value.decode()) for name, value in response.headers]
            return Answer(response.status_code, dict(fields), body, fields)
        else:
            assert isinstance(event, h11.InformationalResponse), event


async def raw_answer(stream: trio.SocketStream) -> Answer:
    """The answer to bytes that a test has sent by itself."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "localhost")]))
    connection.send(h11.EndOfMessage())
    return await _answer(connection, stream)
