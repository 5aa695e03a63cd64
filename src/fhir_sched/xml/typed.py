"""The text of a `value` attribute -> the JSON value of its type (R4 2.24.0.1).

Other types are texts in JSON too, judged by validation.
"""

from __future__ import annotations

import re
from decimal import Decimal

from fhir_sched import document
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.r4.finding import shown

_BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"-?[0-9]+")
_INTEGERS = frozenset({"integer", "positiveInt", "unsignedInt"})

TYPED = _INTEGERS | {"boolean", "decimal"}
"""The types whose JSON value is not the text itself."""


def typed(text: str, type_name: str) -> bool | int | Decimal:
    """The value as JSON has it, of a type in `TYPED`. Raises FhirError (400, value) for what is none."""
    if type_name == "boolean":
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        raise FhirError(Kind.VALUE, f"{shown(text)} is not valid: a boolean is true or false.")
    if type_name in _INTEGERS:
        if _INTEGER.fullmatch(text):
            return int(text)
        raise FhirError(Kind.VALUE, f"{shown(text)} is not valid: a whole number of up to 31 bits is needed.")
    if _DECIMAL.fullmatch(text):
        return document.integer(text) if _WHOLE.fullmatch(text) else document.decimal(text)
    raise FhirError(Kind.VALUE, f"{shown(text)} is not valid: a decimal is written like -1.50 or 1e3.")
