"""A piece of an XML document as a document of its own: as it was written, with the namespaces that it inherits.

Law: when the piece declares all its namespaces itself, as a narrative's div nearly always does, nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Of a start tag that a parser has accepted: its name, then each attribute; a value may hold `>`.
_NAME = re.compile(rb"<([^\s/>]++)")
_ATTRIBUTE = re.compile(r"""\s++([^\s=/>]++)\s*+=\s*+(?:"[^"]*+"|'[^']*+')""")
_ESCAPES = {"&": "&amp;", "<": "&lt;", '"': "&quot;"}

Namespaces = Mapping[str | None, str | None]


def excerpt(body: bytes, start: int, end: int, scope: Namespaces) -> str:
    """The element that starts at byte `start`. Its end tag starts at `end`; an empty-element tag ends there.

    `scope` are the namespaces by prefix (None: the default) that hold inside the element.
    """
    found = _NAME.match(body, start)
    name = found[1] if found is not None else b""
    if body.startswith(b"</" + name, end):
        end = body.index(b">", end) + 1
    text = body[start:end].decode()
    at = 1 + len(name.decode())
    own = _declared(text, at)
    inherited = "".join(
        _declaration(prefix, uri)
        for prefix, uri in scope.items()
        if uri and prefix not in own and (f"{prefix}:" in text if prefix else b":" not in name)
    )
    return text[:at] + inherited + text[at:]


def _declared(text: str, at: int) -> set[str | None]:
    """The prefixes that a start tag declares, read from behind its name."""
    prefixes: set[str | None] = set()
    while (attribute := _ATTRIBUTE.match(text, at)) is not None:
        first, _, last = attribute[1].partition(":")
        if first == "xmlns":
            prefixes.add(last or None)
        at = attribute.end()
    return prefixes


def _declaration(prefix: str | None, uri: str) -> str:
    escaped = "".join(_ESCAPES.get(character, character) for character in uri)
    return f' xmlns:{prefix}="{escaped}"' if prefix else f' xmlns="{escaped}"'
