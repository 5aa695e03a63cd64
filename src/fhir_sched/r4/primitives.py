"""How R4's primitive types are written in JSON: a check for each, linear in the length of the value.

R4 2.24.0.1 (Primitive types). Stricter than the published patterns where the prose is: a date must exist, a text holds
no control characters. Knows no elements.
"""

from __future__ import annotations

import re
from calendar import isleap
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

from fhir_sched.outcome import Kind
from fhir_sched.r4.finding import Findings, one, shown
from fhir_sched.r4.narrative import narrative_fault

# The second argument is for checks that need to know what surrounds the value; primitives do not.
Check: TypeAlias = Callable[[Any, object], Findings | None]

_YEAR = "(?!0000)[0-9]{4}"
_MONTH = "(?:0[1-9]|1[0-2])"
_MONTH_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|[12][0-9]))"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:[.][0-9]+)?"
_OFFSET = "(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
# XML cannot carry U+FFFE and U+FFFF, and what is stored must come back in either format.
_CHARACTER = "[^\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]"
_VISIBLE = "[^\x00-\x20\ud800-\udfff\ufffe\uffff]"
_MAX_TEXT = 1024 * 1024

PATTERNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "code": f"{_VISIBLE}+(?:[ ]{_VISIBLE}+)*",
        "date": f"{_YEAR}(?:-{_MONTH}|-{_MONTH_DAY})?",
        "dateTime": f"{_YEAR}(?:-{_MONTH}|-{_MONTH_DAY}(?:T{_CLOCK}{_OFFSET})?)?",
        "id": r"[A-Za-z0-9\-.]{1,64}",
        "instant": f"{_YEAR}-{_MONTH_DAY}T{_CLOCK}{_OFFSET}",
        "oid": r"urn:oid:[0-2](?:[.](?:0|[1-9][0-9]*))+",
        "string": f"{_CHARACTER}+",
        "time": _CLOCK,
        "uri": f"{_VISIBLE}+",
        "uuid": "urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    }.items()
}

_RIGHT = {
    "code": "a code is a text without leading, trailing or double spaces",
    "date": "a date that exists is YYYY, YYYY-MM or YYYY-MM-DD",
    "dateTime": "a date that exists is YYYY, YYYY-MM, YYYY-MM-DD or, with seconds and offset, ...Thh:mm:ss+hh:mm",
    "id": "an id is 1 to 64 letters, digits, '-' and '.'",
    "instant": "an instant is a date that exists with seconds and offset, YYYY-MM-DDThh:mm:ss+hh:mm or ...Z",
    "oid": "an OID is written urn:oid:1.2.3",
    "string": "a text has at least one character, at most 1 MB, and no control characters",
    "time": "a time of day is hh:mm:ss, without an offset",
    "uri": "a URI has at least one character and no white space",
    "uuid": "a UUID is written urn:uuid: and the UUID in lower case",
}
_ALIKE = {"markdown": "string", "url": "uri", "canonical": "uri"}
_BASE64 = re.compile("[A-Za-z0-9+/]*={0,2}")
_NO_SPACE = str.maketrans("", "", " \t\r\n")


def _text(name: str) -> Check:
    shape = _ALIKE.get(name, name)
    matches, right = PATTERNS[shape].fullmatch, _RIGHT[shape]

    def check(value: Any, _scope: object = None) -> Findings | None:
        if type(value) is str:
            return None if matches(value) else one(Kind.VALUE, f"{shown(value)} is not valid: {right}.")
        return _wrong(value, "a JSON string")

    return check


def _long_text(name: str) -> Check:
    plain = _text(name)

    def check(value: Any, _scope: object = None) -> Findings | None:
        if type(value) is str and len(value) > _MAX_TEXT:
            return one(Kind.VALUE, f"The text has {len(value)} characters: {_RIGHT['string']}.")
        return plain(value, None)

    return check


def _dated(name: str) -> Check:
    plain = _text(name)
    right = _RIGHT[name]

    def check(value: Any, _scope: object = None) -> Findings | None:
        found = plain(value, None)
        if found is None and value[4:10] == "-02-29" and not isleap(int(value[:4])):
            return one(Kind.VALUE, f"{shown(value)} is not valid: {right}.")
        return found

    return check


def _integer(low: int) -> Check:
    high = 2**31 - 1

    def check(value: Any, _scope: object = None) -> Findings | None:
        if type(value) is int:
            if low <= value <= high:
                return None
            return one(Kind.VALUE, f"{shown(value)} is out of range: {low} to {high} is allowed.")
        return _wrong(value, "a JSON number without fraction or exponent")

    return check


def _decimal(value: Any, _scope: object = None) -> Findings | None:
    if type(value) is int or (type(value) is Decimal and value.is_finite()):
        return None
    return None if type(value) is float and isfinite(value) else _wrong(value, "a JSON number")


def _boolean(value: Any, _scope: object = None) -> Findings | None:
    return None if type(value) is bool else _wrong(value, "true or false")


def _base64(value: Any, _scope: object = None) -> Findings | None:
    if type(value) is not str:
        return _wrong(value, "a JSON string")
    packed = value.translate(_NO_SPACE)
    if packed and len(packed) % 4 == 0 and _BASE64.fullmatch(packed):
        return None
    return one(Kind.VALUE, "The text is not base64 (RFC 4648 section 4, padded).")


def _xhtml(value: Any, _scope: object = None) -> Findings | None:
    if type(value) is not str:
        return _wrong(value, "a JSON string")
    fault = narrative_fault(value)
    return None if fault is None else one(Kind.INVARIANT, fault)


def _wrong(value: Any, right: str) -> Findings:
    if value is None:
        return one(Kind.STRUCTURE, "null is not allowed here: leave an element out that has no value.")
    if type(value) is list:
        return one(Kind.STRUCTURE, "An array is not allowed here: the element occurs once.")
    return one(Kind.STRUCTURE, f"{shown(value)} has the wrong JSON type: it must be {right}.")


CHECKS: Mapping[str, Check] = {
    "base64Binary": _base64,
    "boolean": _boolean,
    "decimal": _decimal,
    "integer": _integer(-(2**31)),
    "positiveInt": _integer(1),
    "unsignedInt": _integer(0),
    "xhtml": _xhtml,
    **{name: _dated(name) for name in ("date", "dateTime", "instant")},
    **{name: _text(name) for name in ("canonical", "code", "id", "oid", "time", "uri", "url", "uuid")},
    **{name: _long_text(name) for name in ("markdown", "string")},
}


def required_code(codes: tuple[str, ...]) -> Check:
    """A check that the value is one of these codes."""
    allowed = frozenset(codes)
    listed = ", ".join(codes) if len(codes) <= 40 else f"one of {len(codes)} codes, such as {', '.join(codes[:5])}"

    def check(value: Any, _scope: object = None) -> Findings | None:
        if type(value) is str:
            if value in allowed:
                return None
            return one(Kind.CODE_INVALID, f"The code {shown(value)} is not allowed here; allowed: {listed}.")
        return _wrong(value, "a JSON string")

    return check
