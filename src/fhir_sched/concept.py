"""Elements that are CodeableConcepts, and the columns that hold their codes or words. R4 2.24.0.5 (CodeableConcept).

A column says less than a concept can: a code, or words for people; the rest is kept by `mapping`. Knows nothing of SQL
statements, HTTP or validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from fhir_sched import codec
from fhir_sched.document import dumps
from fhir_sched.element import Columns, Element, Plain, Reading

APPOINTMENT_TYPE_SYSTEM = "http://terminology.hl7.org/CodeSystem/v2-0276"
APPOINTMENT_TYPES = frozenset({"CHECKUP", "EMERGENCY", "FOLLOWUP", "ROUTINE", "WALKIN"})


@dataclass(frozen=True)
class Concept(Element):
    """A CodeableConcept in a text column that holds the first coding's code.

    A code of `known` comes back with `system`. `blank` is stored where the column may not be NULL.
    """

    system: str = ""
    known: frozenset[str] = frozenset()
    blank: str | None = None

    def plain(self, *columns: str) -> Plain:
        known = {code.encode(): self.render(code.encode()) for code in self.known}
        other = f',"{self.name}":{{"coding":[{{"code":"%b"}}]}}'.encode()
        name, column = f"{self.name}_known", columns[0]
        value = f"b'' if {column} is None else {name}[{column}] if {column} in {name} else {other!r} % {column}"
        return Plain(b"%b", (value,), (f"({column} is None or {column}.isalnum())",), ((name, known),))

    def render(self, *values: bytes | None) -> bytes:
        text = (values[0] or b"").decode()
        if not text.strip():
            return b""
        if not codec.is_code(text):
            return b',"' + self.name.encode() + b'":' + dumps({"text": codec.printable(text)})
        coding = {"system": self.system, "code": text} if text in self.known else {"code": text}
        return b',"' + self.name.encode() + b'":' + dumps({"coding": [coding]})

    def read(self, value: Any, reading: Reading) -> Columns:
        stored = first_code(value)
        if stored is None and self.blank is not None:
            stored = value.get("text", self.blank) if isinstance(value, dict) else self.blank
        return {self.shown[0]: None if stored is None else stored.encode()}


@dataclass(frozen=True)
class Words(Element):
    """A CodeableConcept (a list of one when `many`) in a text column for people: its text, else a display or code.

    `when` names the words of the second column that allow the element at all (R4 app-4).
    """

    many: bool = False
    when: frozenset[str] | None = None

    @property
    def written(self) -> tuple[str, ...]:
        return self.shown[:1]

    def render(self, *values: bytes | None) -> bytes:
        text = (values[0] or b"").decode()
        if not text.strip() or (self.when is not None and (values[1] or b"").decode() not in self.when):
            return b""
        concept = {"text": codec.printable(text)}
        return b',"' + self.name.encode() + b'":' + dumps([concept] if self.many else concept)

    def read(self, value: Any, reading: Reading) -> Columns:
        concept = value[0] if self.many and isinstance(value, list) else value
        return {self.shown[0]: None if not isinstance(concept, dict) else _words(concept)}


def _words(concept: dict[str, Any]) -> bytes | None:
    if concept.get("text"):
        return str(concept["text"]).encode()
    for coding in concept.get("coding", ()):
        if coding.get("display") or coding.get("code"):
            return str(coding.get("display") or coding["code"]).encode()
    return None


def first_code(concept: Any) -> str | None:
    """The code of the first coding that has one."""
    if not isinstance(concept, dict):
        return None
    return next((coding["code"] for coding in concept.get("coding", ()) if coding.get("code")), None)


@dataclass(frozen=True)
class ServiceTypes(Element):
    """`Schedule.serviceType` in a text[] column: each a code, or `system|code`; one concept for each code."""

    def render(self, *values: bytes | None) -> bytes:
        stored = [word for word in _listed(values[0]) if word and word.strip()]
        if not stored:
            return b""
        return b',"' + self.name.encode() + b'":' + dumps([_service(word) for word in stored])

    def read(self, value: Any, reading: Reading) -> Columns:
        codings = (coding for concept in value or () for coding in concept.get("coding", ()) if coding.get("code"))
        words = [
            f"{coding['system']}|{coding['code']}" if coding.get("system") else coding["code"] for coding in codings
        ]
        return {self.shown[0]: codec.text_array(words) if words else None}


def _listed(value: bytes | None) -> list[str]:
    """A text[] as a read selects it (JSON) or as `codec.text_array` writes it, whose quoting is JSON's too."""
    if not value:
        return []
    listed: list[str] = orjson.loads(b"[" + value[1:-1] + b"]" if value.startswith(b"{") else value)
    return listed


def _service(word: str) -> dict[str, Any]:
    system, _, code = word.rpartition("|")
    if not codec.is_code(code):
        return {"text": codec.printable(word)}
    return {"coding": [{"system": system, "code": code} if system else {"code": code}]}
