"""Narrative: one well-formed XHTML `div` without anything that acts (R4 2.4, rules txt-1 and txt-2).

Parsed by expat with document types, entities and processing instructions refused, so that nothing is ever fetched or
expanded. Knows nothing of the resource around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.parsers import expat

from fhir_sched.document import MAX_DEPTH

XHTML = "http://www.w3.org/1999/xhtml"
_ALLOWED = """
    a abbr acronym address area b bdo big blockquote br caption cite code col colgroup dd del dfn div dl dt em
    h1 h2 h3 h4 h5 h6 hr i img ins kbd li map ol p pre q samp small span strong sub sup
    table tbody td tfoot th thead tr tt ul var
"""
_ELEMENTS = frozenset(_ALLOWED.split())
# A link may name a place in the document, a page or a mailbox, but nothing that runs.
_ACTIVE_LINK = re.compile(r"\s*+(?!https?:|mailto:|tel:|ftp:|cid:|urn:|data:image/(?!svg))[^/?#]*:", re.IGNORECASE)
_ACTIVE_STYLE = re.compile(r"expression\s*\(|javascript:|vbscript:|behaviou?r\s*:|-moz-binding|@import", re.IGNORECASE)
_LINKS = frozenset({"href", "src", "cite", "longdesc", "usemap", "background"})


class _RefusedError(Exception):
    """Carries the sentence."""


def narrative_fault(text: str) -> str | None:
    """What is wrong with the text of a `Narrative.div`, as a sentence; None when it may be stored and shown."""
    reader = _Reader()
    try:
        reader.read(text)
    except _RefusedError as error:
        return str(error)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        return f"The narrative is not well-formed XHTML: {error}."
    return None if reader.has_content else "The narrative has no content: a div with text or an image is needed."


class _Reader:
    def __init__(self) -> None:
        self.has_content = False
        self._depth = 0
        parser = expat.ParserCreate(encoding="UTF-8", namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.XmlDeclHandler = self._refuse
        parser.StartDoctypeDeclHandler = self._refuse
        parser.ProcessingInstructionHandler = self._refuse
        self._parser = parser

    def read(self, text: str) -> None:
        self._parser.Parse(text.encode("utf-8"), True)

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        space, _, name = tag.rpartition(" ")
        if self._depth >= MAX_DEPTH:
            raise _RefusedError(f"A narrative may be nested {MAX_DEPTH} levels deep.")
        if self._depth == 0 and name != "div":
            raise _RefusedError(f"The narrative must be a div, not {name[:40]!a}.")
        if space != XHTML:
            raise _RefusedError(f"A narrative is in the namespace {XHTML}: let the div declare it (xmlns).")
        if name not in _ELEMENTS:
            raise _RefusedError(
                f"A narrative may not hold the element {name[:40]!a}; text, lists, tables and images may be."
            )
        for attribute, value in attributes.items():
            _refuse_active(attribute.lower(), value)
        self._depth += 1
        self.has_content = self.has_content or name == "img"

    def _end(self, _tag: str) -> None:
        self._depth -= 1

    def _characters(self, text: str) -> None:
        self.has_content = self.has_content or not text.isspace()

    def _refuse(self, *_: object) -> None:
        raise _RefusedError("A narrative may hold no document type, entity, XML declaration or processing instruction.")


def _refuse_active(attribute: str, value: str) -> None:
    if attribute.startswith("on") or " " in attribute.removeprefix("http://www.w3.org/xml/1998/namespace "):
        raise _RefusedError(f"A narrative may not have the attribute {attribute[:60]!a}.")
    if attribute in _LINKS and _ACTIVE_LINK.match(value):
        raise _RefusedError(
            f"The {attribute} of a narrative may not be {value[:40]!a}: link a page, picture or mailbox."
        )
    if attribute == "style" and _ACTIVE_STYLE.search(value):
        raise _RefusedError("The style of a narrative may hold nothing that runs or loads.")
