"""XML -> a resource as JSON has it (R4 2.6.1). Input is hostile: no document type, no entities, nothing is ever loaded.

Read in one pass by expat. Unknown elements and attributes, and elements that are not in the order of the schema, are
refused all at once, each with its place; values are judged by validation, as in JSON. Comments are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

from fhir_sched.document import MAX_DEPTH
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.r4.finding import CAP, shown
from fhir_sched.r4.shape import unknown_element
from fhir_sched.r4.structure import RESOURCE_TYPES
from fhir_sched.xml.excerpt import excerpt
from fhir_sched.xml.frame import Frame, attach
from fhir_sched.xml.plan import FHIR, Child, Plan, Shape, namespace_of, plan_of
from fhir_sched.xml.typed import TYPED, typed

_BOM = b"\xef\xbb\xbf"
# Tells validators where a schema is; it says nothing about the resource and is never followed.
_SCHEMA_LOCATION = "http://www.w3.org/2001/XMLSchema-instance schemaLocation"
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii"})


def from_xml(body: bytes) -> dict[str, Any]:
    """The resource that `body` holds, numbers as `document.parse` gives them.

    Raises FhirError (400) with at most 50 issues when it is not well-formed XML in UTF-8 (a byte order mark is passed
    over), has a document type, entities or processing instructions, is nested more than 64 levels deep, is no R4
    resource in FHIR's namespace, or has elements, attributes or text that R4 does not know or not there.
    """
    body = body.removeprefix(_BOM)
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(f"The body is not UTF-8: byte {error.start} cannot be read.") from None
    if not body.strip():
        raise _refusal("The body is empty; an XML document is needed.")
    return _Reader(body).read()


class _Reader:
    """Handlers of one document. `_outside` counts open elements that are not FHIR's: narrative, or unknown ones."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._issues: list[Issue] = []
        self._root: dict[str, Any] = {}
        self._frame = Frame(None, {}, None, None)
        self._outside = 0
        self._div_from = -1
        self._namespaces: list[tuple[str | None, str | None]] = []
        self._parser = self._made_parser()

    def read(self) -> dict[str, Any]:
        try:
            self._parser.Parse(self._body, True)
        except expat.ExpatError as error:
            raise _refusal(f"The body is not well-formed XML: {error}.") from None
        if self._issues:
            raise FhirError.of(self._issues)
        return self._root

    def _made_parser(self) -> expat.XMLParserType:
        parser = expat.ParserCreate(encoding="UTF-8", namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartNamespaceDeclHandler = self._namespace
        parser.EndNamespaceDeclHandler = self._namespace_ended
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._refused
        parser.ProcessingInstructionHandler = self._refused
        return parser

    # what expat calls

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._outside:
            self._outside += 1
            if self._outside > MAX_DEPTH:
                raise _too_deep()
            return
        frame = self._frame
        if frame.plan is None:
            self._start_resource(frame, tag, attributes)
            return
        child = frame.plan.tags.get(tag)
        if child is None:
            self._unknown(frame.plan, tag)
            return
        rank = frame.plan.ranks[child.name]
        if rank >= frame.rank:
            frame.rank = rank
        else:
            self._misplaced(frame, frame.plan, child)
        if not child.repeats and (child.name in frame.target or f"_{child.name}" in frame.target):
            self._skip(f"{child.name} may occur only once.", child.step)
        elif child.shape is Shape.VALUE:
            self._start_value(frame, child, attributes)
        elif child.shape is Shape.ELEMENTS:
            self._start_elements(frame, child, attributes)
        elif child.shape is Shape.RESOURCE:
            self._frame = Frame(None, {}, frame, child, len(frame.target.get(child.name, ())))
            self._take(attributes, {}, {}, child.name)
        else:
            self._outside, self._div_from = 1, self._parser.CurrentByteIndex

    def _end(self, _tag: str) -> None:
        if self._outside:
            self._outside -= 1
            if not self._outside and self._div_from >= 0:
                span = self._div_from, self._parser.CurrentByteIndex
                self._frame.target["div"] = excerpt(self._body, *span, dict(self._namespaces))
                self._div_from = -1
            return
        frame = self._frame
        if frame.plan is None:
            if not frame.seen:
                self._issue("A resource is needed here, in an element named like its type.")
        elif frame.child is not None and frame.child.shape is Shape.VALUE:
            self._end_value(frame, frame.child)
        else:
            frame.level()
        self._frame = frame.parent

    def _characters(self, text: str) -> None:
        if not self._outside and text.strip(" \t\r\n"):
            self._issue("Text may stand in a narrative only; the value of an element is its attribute value.")

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        self._namespaces.append((prefix, uri))

    def _namespace_ended(self, _prefix: str | None) -> None:
        self._namespaces.pop()

    def _declaration(self, version: str, encoding: str | None, _standalone: int) -> None:
        if version != "1.0" or (encoding or "utf-8").lower() not in _UTF_8:
            raise _refusal("FHIR's XML is version 1.0 in UTF-8; the XML declaration says otherwise.")

    def _refused(self, *_: object) -> None:
        raise _refusal("FHIR's XML may hold no document type, entity or processing instruction.")

    # what becomes of an element

    def _start_resource(self, frame: Frame, tag: str, attributes: dict[str, str]) -> None:
        space, _, name = tag.rpartition(" ")
        if frame.seen:
            self._skip("Only one resource may stand here.")
            return
        frame.seen = True
        if space != FHIR or name not in RESOURCE_TYPES:
            self._skip(f"{shown(name)} in the namespace {shown(space)} is not a resource type of R4 ({FHIR}).")
            return
        resource: dict[str, Any] = {"resourceType": name}
        inner = Frame(plan_of(name), resource, frame, None)
        if frame.child is None:
            self._root = resource
        else:
            attach(frame.parent.target, frame.child, resource)
            inner.depth += frame.child.repeats
        self._open(inner)
        attributes.pop(_SCHEMA_LOCATION, None)
        self._take(attributes, {}, resource, name)

    def _start_elements(self, frame: Frame, child: Child, attributes: dict[str, str]) -> None:
        plan = plan_of(child.type)
        target: dict[str, Any] = {}
        inner = Frame(plan, target, frame, child, attach(frame.target, child, target))
        inner.depth += child.repeats
        self._open(inner)
        if attributes:
            self._take(attributes, plan.attributes, target, child.name)

    def _start_value(self, frame: Frame, child: Child, attributes: dict[str, str]) -> None:
        plan = plan_of("Element")
        inner = self._frame = Frame(plan, {}, frame, child)
        inner.depth += 1 + child.repeats
        text = attributes.pop("value", None)
        if text is not None:
            inner.value = self._typed(text, child) if child.type in TYPED else text
        if child.repeats:
            inner.index = attach(frame.target, child, inner.value)
        elif text is not None:
            frame.target[child.name] = inner.value
        if attributes:
            self._take(attributes, plan.attributes, inner.target, child.name)

    def _end_value(self, frame: Frame, child: Child) -> None:
        if frame.target:
            if frame.depth > MAX_DEPTH:
                raise _too_deep()
            frame.parent.add_sibling(child, frame.index, frame.target)
        elif frame.value is None:
            self._issue("An element needs a value or elements of its own. (ele-1)")

    def _open(self, frame: Frame) -> None:
        frame.depth += 1
        if frame.depth > MAX_DEPTH:
            raise _too_deep()
        self._frame = frame

    def _typed(self, text: str, child: Child) -> Any:
        try:
            return typed(text, child.type)
        except FhirError as error:
            self._issue(error.issues[0].diagnostics, kind=error.issues[0].kind)
            return text

    def _take(
        self, attributes: dict[str, str], known: Mapping[str, Child], target: dict[str, Any], element: str
    ) -> None:
        for name, value in attributes.items():
            if name in known:
                target[name] = value
            else:
                self._issue(f"{element} has no attribute {shown(name)} in R4.")

    def _unknown(self, plan: Plan, tag: str) -> None:
        space, _, name = tag.rpartition(" ")
        child = plan.children.get(name)
        if child is not None:
            self._skip(f"{name} has to be in the namespace {namespace_of(child)}, not {shown(space)}.", child.step)
        elif space != FHIR:
            self._skip(f"{shown(name)} is in the namespace {shown(space)}; R4's elements are in {FHIR}.")
        elif name in plan.attributes:
            self._skip(f"{name} is an attribute in XML; write it into the start tag.", plan.attributes[name].step)
        else:
            ((step, _kind, sentence),) = unknown_element(name, plan.definition)
            self._skip(sentence, step)

    def _misplaced(self, frame: Frame, plan: Plan, child: Child) -> None:
        behind = next(name for name, rank in plan.ranks.items() if rank == frame.rank)
        sentence = f"{child.name} has to stand in front of {behind}: the elements of R4's XML have an order."
        place = f"[{len(frame.target.get(child.name, ()))}]" if child.repeats else ""
        self._issue(sentence, child.step + place)

    def _skip(self, sentence: str, step: str = "") -> None:
        self._issue(sentence, step)
        self._outside = 1

    def _issue(self, sentence: str, step: str = "", *, kind: Kind = Kind.STRUCTURE) -> None:
        self._issues.append(Issue(kind, sentence, self._path() + step or None))
        if len(self._issues) >= CAP:
            raise FhirError.of(self._issues)

    def _path(self) -> str:
        steps, frame = [], self._frame
        while frame.parent is not frame:
            if frame.child is not None:
                steps.append(f"{frame.child.step}[{frame.index}]" if frame.child.repeats else frame.child.step)
            frame = frame.parent
        root: str = self._root.get("resourceType", "")
        return root + "".join(reversed(steps))


def _too_deep() -> FhirError:
    return _refusal(f"The body is nested more than {MAX_DEPTH} levels deep.")


def _refusal(diagnostics: str) -> FhirError:
    return FhirError(Kind.STRUCTURE, diagnostics)
