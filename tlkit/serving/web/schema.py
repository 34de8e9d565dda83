"""The description of the API, and a page of it that needs nothing from outside."""

from __future__ import annotations

import html
import json
from typing import Any

_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_RANKED = {"type": "object", "properties": {"label": _TEXT, "probability": _NUMBER}}
_PREDICTION = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "of the file, in a form"},
        "label": {
            "type": "string",
            "description": "of the most probable class, or unsure; of several labels, with | between them",
        },
        "probability": {"type": "number", "description": "of this label, or of the most probable one, from 0 to 1"},
        "top": {"type": "array", "items": _RANKED, "description": "the five most probable classes"},
        "label_set": {
            "type": "array",
            "items": _TEXT,
            "description": "classes one of which is right as often as was asked for; if the model has such sets",
        },
        "novel": {
            "type": "boolean",
            "description": "whether the photo is like none that the model has learned from; if it can tell",
        },
        "heatmap": {
            "type": "string",
            "description": "a data URI: the photo as the network sees it, and where in it the first class is",
        },
        "error": {"type": "string", "description": "in place of these: why the photo has no answer"},
    },
}
_PREDICTIONS = {"type": "array", "items": _PREDICTION, "description": "one for each photo, in order"}
_PROBLEM = {"type": "object", "properties": {"error": _TEXT, "predictions": _PREDICTIONS}}
_FILE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "description": "a photo's file in base64"}
_REFUSALS = {
    400: "No photo can be read, or the request cannot; error says why.",
    408: "The body came too slowly.",
    413: "More bytes, photos or pixels than are allowed.",
    415: "A Content-Type that is not supported.",
    500: "The model cannot predict.",
    503: "Too many photos are waiting; try again after the seconds in the header Retry-After.",
}

_WAYS = """\
curl -H "Content-Type: image/jpeg" --data-binary @photo.jpg http://127.0.0.1:8000/predict
curl -F photo=@one.jpg -F photo=@two.png http://127.0.0.1:8000/predict
curl -H "Content-Type: application/json" -d '{"image": "...base64..."}' http://127.0.0.1:8000/predict
curl -H "Content-Type: application/json" -d '{"images": ["...", "..."]}' http://127.0.0.1:8000/predict
curl -H "Content-Type: image/jpeg" --data-binary @photo.jpg 'http://127.0.0.1:8000/predict?explain=true'"""

PREDICT: dict[str, Any] = {
    "description": _WAYS,
    "parameters": [
        {
            "name": "explain",
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": "whether each answer has a heatmap; for 8 photos at the most, if the model has them",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"photo": {"type": "array", "items": _FILE}}}
            },
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"type": "object", "properties": {"image": _BASE64}, "required": ["image"]},
                        {
                            "type": "object",
                            "properties": {"images": {"type": "array", "items": _BASE64}},
                            "required": ["images"],
                        },
                    ]
                }
            },
        },
    },
    "responses": {
        "200": {
            "description": "At least one photo has an answer.",
            "content": {
                "application/json": {"schema": {"type": "object", "properties": {"predictions": _PREDICTIONS}}}
            },
        },
        **{
            str(status): {"description": about, "content": {"application/json": {"schema": _PROBLEM}}}
            for status, about in _REFUSALS.items()
        },
    },
}

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8886; border-radius: .5rem; font-size: .85rem }
table { border-collapse: collapse } td { padding: .2rem 1rem .2rem 0; vertical-align: top }
"""


def page(openapi: dict[str, Any]) -> str:
    """Write the description of an API as a page.

    Args:
        openapi: As FastAPI makes it.

    >>> "<h2>GET /metrics</h2>" in page({"info": {"title": "x"}, "paths": {"/metrics": {"get": {"summary": "s"}}}})
    True
    """
    parts = []
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(operation['summary'])}</p>")
            if "description" in operation:
                parts.append(f"<pre>{html.escape(operation['description'])}</pre>")
            for content_type, entry in operation.get("requestBody", {}).get("content", {}).items():
                parts.append(_code(f"Content-Type {content_type}", entry["schema"]))
            rows = "".join(
                f"<tr><td>{html.escape(status)}</td><td>{html.escape(entry['description'])}</td></tr>"
                for status, entry in operation.get("responses", {}).items()
            )
            parts.append(f"<p>Answers</p><table>{rows}</table>" if rows else "")
            answer = operation.get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
            parts.append(_code("The answer", answer["schema"]) if "properties" in answer.get("schema", {}) else "")
    title, about = (html.escape(openapi["info"].get(name, "")) for name in ("title", "description"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: API</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1><p>{about} The same as <a href='openapi.json'>OpenAPI</a>; "
        f"<a href='./'>a page to try it</a>.</p>{''.join(parts)}</body></html>"
    )


def _code(title: str, schema: dict[str, Any]) -> str:
    text = html.escape(json.dumps(schema, indent=1))
    return f"<details><summary>{html.escape(title)}</summary><pre>{text}</pre></details>"
