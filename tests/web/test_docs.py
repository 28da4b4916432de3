"""The OpenAPI document and the page that is made from it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
import trio
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sidecar.web.docs import page
from tests.web.conftest import start
from tests.web.serving import Client, RecordingIntake

ROUTES = {"/jobs", "/jobs/batch", "/jobs/add", "/jobs/subtract", "/jobs/multiply", "/jobs/divide"}


async def document(client: Client) -> dict[str, Any]:
    answer = await client.request("GET", "/openapi.json")
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_the_document_has_every_route_and_answer(client: Client) -> None:
    found = await document(client)

    assert found["openapi"].startswith("3.1")
    assert set(found["paths"]) == ROUTES
    for path in ROUTES:
        operation = found["paths"][path]["post"]
        assert {"200", "403", "413", "421", "422", "503"} <= set(operation["responses"])
        assert operation["requestBody"]["content"]["application/json"]["examples"]


async def test_the_documents_examples_are_answered_as_it_says(client: Client) -> None:
    found = await document(client)
    for path, methods in found["paths"].items():
        content = methods["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            answer = await client.request("POST", path, example["value"])
            assert answer.status == 200
            shown = methods["post"]["responses"]["200"]["content"]["application/json"]["examples"]["enqueued"]["value"]
            assert list(answer.json()) == list(shown)


async def test_the_guides_examples_are_in_it(client: Client) -> None:
    found = await document(client)
    examples = found["paths"]["/jobs/batch"]["post"]["requestBody"]["content"]["application/json"]["examples"]

    assert {"type": "Multiply", "args": {"a": 3, "b": 4}} in examples["three jobs"]["value"]["jobs"]
    assert examples["with request ids"]["value"]["jobs"][0]["args"]["request_id"] == "req-1"


class Outline(HTMLParser):
    """What a page refers to, and whether its elements are closed in order."""

    VOID = frozenset(["meta", "br", "link", "img", "input"])

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: set[str] = set()
        self.headings: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value:
                self.references.append(value)
            if name == "id" and value:
                assert value not in self.ids
                self.ids.add(value)
            assert not name.startswith("on"), "the content security policy forbids it"
            assert name != "style"
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_page_works_without_a_network(client: Client) -> None:
    answer = await client.request("GET", "/docs")
    outline = Outline()
    outline.feed(answer.body.decode())

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not outline.open
    assert outline.headings[0] == 1
    assert set(outline.headings[1:]) == {2}
    for reference in outline.references:
        assert reference == "/openapi.json" or reference.removeprefix("#") in outline.ids
    assert b"@import" not in answer.body
    assert b"url(" not in answer.body
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


async def test_the_page_shows_every_route_with_its_curl_line(client: Client) -> None:
    text = (await client.request("GET", "/docs")).body.decode()
    for path in ROUTES:
        assert f"curl -X POST http://localhost:3000{path} \\" in text


async def test_routes_of_other_routers_are_served_and_documented(
    nursery: trio.Nursery, intake: RecordingIntake
) -> None:
    router = APIRouter()

    @router.get("/livez")
    async def livez(_request: Request) -> Response:
        """Whether it lives."""
        return Response(b"{}", media_type="application/json")

    port = await start(nursery, intake, routers=[router])
    client = await Client.connect(port)
    async with client.stream:
        assert (await client.request("GET", "/livez")).body == b"{}"
        assert "/livez" in (await document(client))["paths"]
        assert b"/livez" in (await client.request("GET", "/docs")).body
        wrong = await client.request("POST", "/livez")
        assert wrong.status == 405
        assert wrong.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x>', "`</code>`"])
def test_texts_are_escaped(hostile: str) -> None:
    content = {"schema": {"type": "object", "properties": {hostile: {"type": "string", "description": hostile}}}}
    content["examples"] = {"one": {"value": {"text": hostile}}}
    operation = {
        "operationId": "x",
        "summary": hostile,
        "description": hostile,
        "requestBody": {"content": {"application/json": content}},
        "responses": {"200": {"description": hostile}},
    }
    info = {"title": hostile, "version": hostile, "description": hostile}
    text = page({"info": info, "paths": {"/x": {"post": operation}}, "components": {"schemas": {}}})
    outline = Outline()
    outline.feed(text)

    assert "<script>alert" not in text
    assert "<img" not in text
    assert not outline.open
