"""`GET /docs`: the OpenAPI document for people, made here, without a script and without anything from elsewhere.

FastAPI's own page loads its script and style from another host, which the content security policy forbids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

router: Final = APIRouter(include_in_schema=False)
STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
summary { cursor: pointer; padding: .4rem 0; }
summary:focus-visible { outline: 2px solid; }
details { border-bottom: 1px solid #8886; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; background: #8882; }
table { border-collapse: collapse; }
td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
"""


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Every route, with its parameters, its body and its answers."""
    document = request.app.openapi()
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(document['info']['title'])}</title>"
        '<link rel="stylesheet" href="docs/style.css">'
        f"<h1>{escape(document['info']['title'])}</h1>"
        "<p>Send an API key with each request: <code>Authorization: Bearer flux_...</code>."
        ' For programs: <a href="openapi.json">openapi.json</a>.</p>'
    )
    return HTMLResponse(head + "".join(_operations(document)))


@router.get("/docs/style.css")
async def style() -> Response:
    return Response(STYLE, media_type="text/css")


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            said = escape(operation.get("description") or operation.get("summary") or "")
            name = f"<code>{method.upper()} {escape(path)}</code>"
            yield f"<details><summary>{name}</summary><p>{said}</p>"
            yield _table("Parameters", _parameters(operation))
            body = operation.get("requestBody", {}).get("content", {})
            for kind, described in body.items():
                schema = json.dumps(described.get("schema", {}), indent=1, ensure_ascii=False)
                yield f"<p>Body, <code>{escape(kind)}</code>:</p><pre>{escape(schema)}</pre>"
            answers = [(status, answer.get("description", "")) for status, answer in operation["responses"].items()]
            yield _table("Answers", answers) + "</details>"


def _parameters(operation: Mapping[str, Any]) -> list[tuple[str, str]]:
    given = operation.get("parameters", [])
    return [(f"{one['name']} ({one['in']})", one.get("description", "")) for one in given]


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{escape(said)}</td></tr>" for name, said in rows)
    return f"<p>{title}:</p><table>{lines}</table>"
