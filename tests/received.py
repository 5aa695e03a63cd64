"""What the server answered in this run: one document of each shape, kept for an independent validator.

A shape is the set of a document's element paths together with the values that rules of FHIR depend on (a status, a kind
of Bundle …); of the documents of a shape the shortest is kept. A run of several processes hands them over in the folder
that RECEIVED_ANSWERS names. Knows no rule of FHIR.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx

LIMIT = 1500
"""Documents that are kept; with more shapes than this the run has forgotten to share them."""
_TELLING = frozenset({"status", "mode", "severity", "relation", "method", "intent", "use", "type", "versioning"})


@dataclass(frozen=True)
class Document:
    """A body as it was received, and the request and the test that it answered."""

    text: str
    asked: str
    test: str

    def __str__(self) -> str:
        return f"{self.asked} in {self.test}: {self.text[:1500]}"


_kept: dict[str, Document] = {}
_seen: set[bytes] = set()


def keep(answer: httpx.Response) -> None:
    """Keep the body if it is the first of its shape; for httpx's event hooks."""
    path = answer.request.url.path
    # what is no FHIR: discovery, and the manifest of published slots
    if not path.startswith("/fhir/") or "/.well-known/" in path or path.endswith("/$bulk-publish"):
        return
    content = answer.read()
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if content and kind.endswith(("json", "xml")) and "ndjson" not in kind:
        add(content, kind.endswith("xml"), f"{answer.request.method} {path} -> {answer.status_code}")


def add(content: bytes, xml: bool, asked: str) -> None:
    """Keep a body; one that cannot be parsed is kept too, so that the validator says it."""
    digest = blake2b(content, digest_size=16).digest()
    if digest in _seen:
        return
    _seen.add(digest)
    try:
        parts = _xml_parts(ET.fromstring(content), "") if xml else _json_parts(json.loads(content), "")
        shape = "\n".join(sorted(set(parts))).encode()
    except (ValueError, ET.ParseError):
        shape = content
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    _keep_shortest(
        blake2b(shape, digest_size=16).hexdigest(), Document(content.decode("utf-8", "replace"), asked, test)
    )


def _keep_shortest(shape: str, document: Document) -> None:
    before = _kept.get(shape)
    if before is None or len(document.text) < len(before.text):
        _kept[shape] = document


def folder() -> Path | None:
    """Where the processes of this run hand over what they have received; None where there is just one."""
    named = os.environ.get("RECEIVED_ANSWERS")
    return Path(named) if named else None


def hand_over(into: Path) -> None:
    """Write what this process has received, for the one that validates."""
    listed = {shape: (each.text, each.asked, each.test) for shape, each in _kept.items()}
    (into / f"{os.getpid()}.json").write_text(json.dumps(listed))


def take_over(out_of: Path) -> int:
    """Add what other processes have received; how many processes those were."""
    files = sorted(out_of.glob("*.json"))
    for file in files:
        for shape, each in json.loads(file.read_text()).items():
            _keep_shortest(shape, Document(*each))
    return len(files)


def documents() -> list[Document]:
    """What was kept, in the order in which the shapes came up."""
    return list(_kept.values())


def _json_parts(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        path += f".{value['resourceType']}" if "resourceType" in value else ""
        for name, each in value.items():
            yield from _json_parts(each, f"{path}.{name}")
            if isinstance(each, str) and (name in _TELLING or (name == "code" and "severity" in value)):
                yield f"{path}.{name}={each}"
    elif isinstance(value, list):
        for each in value:
            yield from _json_parts(each, path)
    else:
        yield path


def _xml_parts(element: ET.Element, path: str) -> Iterator[str]:
    name = element.tag.rpartition("}")[2]
    path = f"{path}/{name}"
    yield path
    if name in _TELLING and "value" in element.attrib:
        yield f"{path}={element.get('value')}"
    for each in element:
        yield from _xml_parts(each, path)
