"""A resource as JSON has it -> XML (R4 2.6.1), elements in the order of the schema, narrative and digits as they are.

Written straight into text: narrative goes out as it came in, which no tree of elements would keep. Knows no HTTP.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from xml.parsers import expat

from fhir_sched.r4.narrative import XHTML
from fhir_sched.xml.plan import FHIR, Child, Plan, Shape, plan_of

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
# What an attribute can't hold as it is: markup, white space that readers would change, what XML has no way to say.
_SPECIAL = re.compile('[&<>"\t\n\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
_UNSPEAKABLE = "\ufffd"
_INDENT = "  "


def to_xml(document: dict[str, Any], *, pretty: bool = False) -> bytes:
    """The resource as an XML document in UTF-8, indented when `pretty`.

    `document` is valid R4; what has no place in XML raises ValueError.
    """
    writer = _Writer(_INDENT if pretty else "")
    try:
        writer.resource(document, "\n" if pretty else "", f' xmlns="{FHIR}"')
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("the document is not valid R4, so it has no XML form") from error
    return "".join([_HEAD, *writer.parts, "\n" if pretty else ""]).encode()


class _Writer:
    """`margin` is what stands before a tag: nothing, or a line break and the indentation."""

    def __init__(self, indent: str) -> None:
        self.parts: list[str] = []
        self._indent = indent

    def resource(self, value: dict[str, Any], margin: str, namespace: str = "") -> None:
        name: str = value["resourceType"]
        self._element(name, plan_of(name), value, margin, namespace)

    def _element(self, tag: str, plan: Plan, value: dict[str, Any], margin: str, attributes: str = "") -> None:
        for name in plan.attributes:
            if name in value:
                attributes += f' {name}="{_escaped(value[name])}"'
        before = len(self.parts)
        self.parts.append(f"{margin}<{tag}{attributes}>")
        self._children(plan, value, margin + self._indent)
        if len(self.parts) > before + 1:
            self.parts.append(f"{margin}</{tag}>")
        else:
            self.parts[before] = f"{margin}<{tag}{attributes}/>"

    def _children(self, plan: Plan, value: dict[str, Any], margin: str) -> None:
        ranks = plan.ranks
        names = [name for name in value if name != "resourceType" and name not in plan.attributes]
        for name in sorted(names, key=ranks.__getitem__):
            if name[0] != "_":
                child = plan.children[name]
                if child.shape is Shape.VALUE:
                    self._values(child, value[name], value.get(f"_{name}"), margin)
                else:
                    for item in value[name] if child.repeats else (value[name],):
                        self._complex(child, item, margin)
            elif name[1:] not in value:
                self._values(plan.children[name[1:]], None, value[name], margin)

    def _complex(self, child: Child, value: Any, margin: str) -> None:
        if child.shape is Shape.ELEMENTS:
            self._element(child.name, plan_of(child.type), value, margin)
        elif child.shape is Shape.RESOURCE:
            self.parts.append(f"{margin}<{child.name}>")
            self.resource(value, margin + self._indent)
            self.parts.append(f"{margin}</{child.name}>")
        else:
            self.parts.append(margin + _narrative(value))

    def _values(self, child: Child, value: Any, sibling: Any, margin: str) -> None:
        """One primitive element, or all of a repeating one; `sibling` is the underscore property."""
        if not child.repeats:
            self._value(child, value, sibling, margin)
            return
        count = len(value or sibling)
        values, siblings = value or [None] * count, sibling or [None] * count
        for item, partner in zip(values, siblings, strict=True):
            self._value(child, item, partner, margin)

    def _value(self, child: Child, value: Any, sibling: dict[str, Any] | None, margin: str) -> None:
        if sibling is None:
            self.parts.append(f'{margin}<{child.name} value="{_text(value)}"/>')
        else:
            attribute = "" if value is None else f' value="{_text(value)}"'
            self._element(child.name, plan_of("Element"), sibling, margin, attribute)


def _text(value: Any) -> str:
    if type(value) is str:
        return _escaped(value)
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    raise TypeError("a primitive is a text, a number or a truth value")


def _escaped(text: str) -> str:
    return _SPECIAL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0], _UNSPEAKABLE)


def _narrative(text: str) -> str:
    """The div as it is; were it not well-formed it would spoil the whole document, so then its source as text."""
    parser = expat.ParserCreate(encoding="UTF-8", namespace_separator=" ")
    parser.StartDoctypeDeclHandler = parser.XmlDeclHandler = _refuse
    try:
        parser.Parse(text.encode(), True)
    except (expat.ExpatError, UnicodeEncodeError, ValueError):
        return f'<div xmlns="{XHTML}">{_escaped(text)}</div>'
    return text


def _refuse(*_: object) -> None:
    raise ValueError("only the content of a document may stand here")
