"""`/openapi.json`, and `/docs`: one page made from it, with everything in it, so that it works without a network.

The page is plain HTML: headings and tables for screen readers, light or dark as the reader's system is, readable on a
phone. Its only script sends an example to this very sidecar when its button is pressed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sidecar.web.policy import page_headers

Document = dict[str, Any]

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --accent: #075; }
@media (prefers-color-scheme: dark) { :root { --accent: #4d9; } }
* { box-sizing: border-box; }
body { font: 1rem/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1.5rem; }
h2 code { overflow-wrap: anywhere; } h2 .method { color: var(--accent); }
pre, textarea { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; color: inherit;
  display: block; font: .875rem/1.5 ui-monospace, monospace; margin: .5rem 0; overflow: auto; padding: .75rem;
  width: 100%; }
code { font-family: ui-monospace, monospace; font-size: .93em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; }
summary { cursor: pointer; font-weight: 600; } details { margin: .75rem 0; }
button { font: inherit; padding: .35rem .9rem; } nav ul { list-style: none; padding: 0; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""
_SCRIPT: Final = """
for (const form of document.querySelectorAll("form[data-path]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = form.querySelector("output");
    answer.textContent = "…";
    try {
      const response = await fetch(form.dataset.path, {
        method: "POST", headers: {"Content-Type": "application/json"}, body: form.querySelector("textarea").value});
      answer.textContent = response.status + " " + response.statusText + "\\n" + await response.text();
    } catch (error) {
      answer.textContent = "No answer: " + error.message;
    }
  });
}
"""


PAGE_HEADERS: Final = page_headers(_STYLE, _SCRIPT)


def router(document: Document) -> APIRouter:
    """The two routes, their answers made once.

    Args:
        document: the OpenAPI document of all routes that it is to show.
    """
    found = APIRouter(include_in_schema=False)
    as_json = msgspec.json.encode(document)
    as_page = page(document).encode()

    @found.get("/openapi.json")
    async def openapi_json(_request: Request) -> Response:
        return Response(as_json, media_type="application/json", headers={"cache-control": "no-cache"})

    @found.get("/docs")
    async def docs_page(_request: Request) -> Response:
        return Response(as_page, media_type="text/html", headers=PAGE_HEADERS)

    return found


def page(document: Document) -> str:
    """The document as one HTML page."""
    return "".join(_page(document))


def _page(document: Document) -> Iterator[str]:
    info = document["info"]
    operations = list(_operations(document))
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(info['title'])}: HTTP</title><style>{_STYLE}</style></head><body><main>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}: HTTP</h1><p>{_text(info.get('description', ''))}</p>"
    yield '<p>The same for programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>'
    yield '<nav aria-label="Requests"><ul>'
    for method, path, operation in operations:
        yield f'<li><a href="#{escape(operation["operationId"])}"><code>{method} {escape(path)}</code></a> '
        yield f"{_text(operation.get('summary', ''))}</li>"
    yield "</ul></nav>"
    for method, path, operation in operations:
        yield from _operation(document, method, path, operation)
    yield f"</main><script>{_SCRIPT}</script></body></html>"


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _operation(document: Document, method: str, path: str, operation: Document) -> Iterator[str]:
    yield f'<section><h2 id="{escape(operation["operationId"])}"><code><span class="method">{method}</span> '
    yield f"{escape(path)}</code></h2><p><strong>{_text(operation.get('summary', ''))}.</strong> "
    yield f"{_text(operation.get('description', ''))}</p>"
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        yield from _request(document, path, content)
    yield from _answers(document, operation.get("responses", {}))
    yield "</section>"


def _request(document: Document, path: str, content: Document) -> Iterator[str]:
    examples = [example["value"] for example in content.get("examples", {}).values()]
    for example in examples:
        compact = escape(json.dumps(example, ensure_ascii=False))
        yield f'<pre tabindex="0">curl -X POST http://localhost:3000{escape(path)} \\\n'
        yield f"  -H \"Content-Type: application/json\" \\\n  -d '{compact}'</pre>"
    schema = _resolved(document, content["schema"])
    yield from _fields(document, schema)
    if examples:
        text = escape(json.dumps(examples[0], indent=2, ensure_ascii=False))
        rows = text.count("\n") + 1
        yield f'<details><summary>Try it</summary><form data-path="{escape(path)}">'
        yield f'<label>Body<textarea rows="{rows}" spellcheck="false">{text}</textarea></label>'
        yield "<button>Send (enqueues for real)</button>"
        yield '<pre tabindex="0"><output aria-live="polite">The answer comes here.</output></pre></form></details>'


def _fields(document: Document, schema: Document) -> Iterator[str]:
    """A table of an object's fields; of a list's elements, where that is all it holds."""
    required = set(schema.get("required", ()))
    yield '<div class="wide"><table><thead><tr><th scope="col">Field</th><th scope="col">Type</th>'
    yield '<th scope="col">Meaning</th></tr></thead><tbody>'
    for name, field in schema.get("properties", {}).items():
        must = " (required)" if name in required else ""
        yield f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(_type(field))}{must}</td>'
        yield f"<td>{_text(field.get('description', ''))}</td></tr>"
    yield "</tbody></table></div>"
    for name, field in schema.get("properties", {}).items():
        if "$ref" in field.get("items", {}):
            yield f"<p>Each of <code>{escape(name)}</code>:</p>"
            yield from _fields(document, _resolved(document, field["items"]))


def _answers(document: Document, responses: Document) -> Iterator[str]:
    good = {status: answer for status, answer in responses.items() if status.startswith("2")}
    for status, answer in good.items():
        for content in answer.get("content", {}).values():
            for example in content.get("examples", {}).values():
                text = escape(json.dumps(example["value"], indent=2, ensure_ascii=False))
                yield f'<p>Answer {escape(status)}:</p><pre tabindex="0">{text}</pre>'
    yield '<details><summary>All answers</summary><div class="wide"><table><thead><tr><th scope="col">Status</th>'
    yield '<th scope="col">Meaning</th></tr></thead><tbody>'
    for status, answer in responses.items():
        yield f'<tr><th scope="row">{escape(status)}</th><td>{_text(answer.get("description", ""))}</td></tr>'
    yield "</tbody></table></div></details>"


def _type(field: Document) -> str:
    kind = field.get("type", "")
    kinds = [kind] if isinstance(kind, str) else [each for each in kind if each != "null"]
    return " or ".join(kinds)


def _resolved(document: Document, schema: Document) -> Document:
    """The schema that a reference within the document means."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Document = document["components"]["schemas"][name] if name else schema
    return found


def _text(text: str) -> str:
    """Text with `code` in backquotes as HTML."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
