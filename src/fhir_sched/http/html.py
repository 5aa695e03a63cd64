"""HTML pages without scripts or anything from elsewhere: the start page, and the OpenAPI document as a page to read.

Law: every value is escaped, and a Content-Security-Policy allows nothing but the one style sheet in the page.
Knows no resource: it shows what the document says.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from typing import Any, Final

from fhir_sched import __version__
from fhir_sched.http.messages import Response

_STYLE: Final = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b;
  background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; }
a { color: #0b5394; } code { font: 0.9em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
details { border: 1px solid #ccc; border-radius: 4px; margin: 0.5rem 0; padding: 0.4rem 0.8rem; }
summary { cursor: pointer; } summary:focus-visible, a:focus-visible { outline: 3px solid #0b5394; }
.method { font-weight: 700; display: inline-block; min-width: 5rem; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; padding: 0.25rem 0.5rem 0.25rem 0; }
@media (prefers-color-scheme: dark) { body { background: #16181b; color: #e8e8e8; } a { color: #8ab8f0; } }
"""
_POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + b64encode(sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
).encode()


def page(title: str, body: str) -> Response:
    """A page with that title; `body` is HTML."""
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    headers = [(b"content-security-policy", _POLICY)]
    return Response(200, text.encode(), headers, content_type=b"text/html; charset=utf-8")


def start(base: str) -> str:
    """The start page; `base` is a FHIR base URL to show."""
    links = (
        ("/docs", "What the API takes and answers"),
        ("/openapi.json", "The same as an OpenAPI document"),
        (f"{base}/metadata", "The CapabilityStatement of the demo tenant"),
        (f"{base}/Slot?status=free&_count=10", "Free slots of the demo tenant"),
    )
    listed = "\n".join(f'<li><a href="{escape(url)}">{escape(text)}</a></li>' for url, text in links)
    return (
        f"<h1>fhir-sched {escape(__version__)}</h1>\n<p>A FHIR R4 API for scheduling: Schedule, Slot and Appointment."
        f"</p>\n<p>FHIR base URL of the demo tenant: <code>{escape(base)}</code></p>\n<ul>\n{listed}\n</ul>"
    )


def reference(document: dict[str, Any]) -> str:
    """The operations of an OpenAPI document, grouped by their tags."""
    info = document["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>", f"<p>{escape(info['description'])}</p>"]
    parts.append('<p><a href="/openapi.json">The same as an OpenAPI document</a></p>')
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2>\n<p>{escape(tag['description'])}</p>")
        parts += [
            _operation(method, path, operation, document)
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method != "parameters" and tag["name"] in operation["tags"]
        ]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    rows = [_resolved(each, document) for each in [*document["paths"][path].get("parameters", []), *_own(operation)]]
    head = f'<span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code>'
    parts = [
        f"<details>\n<summary>{head} {escape(operation['summary'])}</summary>",
        f"<p>{escape(operation.get('description', ''))}</p>" if operation.get("description") else "",
        "".join(_table("Parameter", (("Name", "In", "Meaning"), *map(_parameter, rows)))) if rows else "",
        f"<p>Body: {escape(', '.join(operation['requestBody']['content']))}</p>" if "requestBody" in operation else "",
        "".join(_table("Answers", (("Status", "Meaning"), *_answers(operation, document)))),
        "</details>",
    ]
    return "\n".join(part for part in parts if part)


def _own(operation: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = operation.get("parameters", [])
    return listed


def _parameter(parameter: dict[str, Any]) -> tuple[str, str, str]:
    return parameter["name"], parameter["in"], parameter.get("description", "")


def _answers(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for status, answer in operation["responses"].items():
        yield status, _resolved(answer, document)["description"]


def _resolved(value: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found = document
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def _table(caption: str, rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """An HTML table; the first row is the head."""
    head, *others = rows
    yield f"<table>\n<caption>{escape(caption)}</caption>\n"
    yield "<tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr>\n"
    for row in others:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
    yield "</table>"
