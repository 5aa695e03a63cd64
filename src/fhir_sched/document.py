"""Strict JSON in, exact JSON out (R4 2.6.2, RFC 8259): one object, no duplicate names, numbers with their digits.

What is refused here is refused whatever the resource: it could not be stored, or two readers would read it differently.
Knows nothing of FHIR's types.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from itertools import accumulate
from typing import Any

import orjson

from fhir_sched.outcome import FhirError, Kind

MAX_DEPTH = 64
MAX_DIGITS = 64

_BOM = b"\xef\xbb\xbf"
# The closing quote is optional so that an unterminated string is passed over in one step: linear on any input.
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEP = {"{": 1, "[": 1, "}": -1, "]": -1}
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_INT64_DIGITS = 18
_EXACT = Context(prec=MAX_DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` holds. Raises FhirError (400, structure) as `parse_any` does, and for no object."""
    value = parse_any(body)
    if not isinstance(value, dict):
        raise _refusal("The body must be one JSON object, such as a FHIR resource.")
    return value


def parse_any(body: bytes) -> Any:
    """The JSON value that `body` holds: integers are `int`, other numbers `Decimal` as written (1.10 stays 1.10).

    Raises FhirError (400, structure) when it is not strict JSON in UTF-8 (a byte order mark is passed over), has a name
    twice in one object, NaN or Infinity, control characters or lone surrogates in a text, a number of more than 64
    digits, or more than 64 levels.
    """
    text = _decoded(body)
    _refuse_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise _refusal(f"The body is not JSON: {what} at line {error.lineno}, column {error.colno}.") from None
    if "\\" in text:  # raw control characters are no JSON and raw surrogates no UTF-8: only escapes can bring them in
        _refuse_characters(value)
    return value


def dumps(value: Any, *, pretty: bool = False) -> bytes:
    """JSON in UTF-8, compact or indented, members in their order, every Decimal with its own digits."""
    return orjson.dumps(value, default=_number, option=orjson.OPT_INDENT_2 if pretty else None)


def reread(body: bytes) -> Any:
    """What `dumps` has written, as it was. For our own JSON only: nothing is refused."""
    return json.loads(body, parse_float=Decimal)


def _decoded(body: bytes) -> str:
    try:
        text = body.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(f"The body is not UTF-8: byte {error.start} cannot be read.") from None
    if not text.strip(" \t\r\n"):
        raise _refusal("The body is empty; a JSON object is needed.")
    return text


def _refuse_depth(text: str) -> None:
    """Counted before parsing, which is recursive."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    brackets = _NOT_BRACKETS.sub("", _STRINGS.sub("", text))
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise _refusal(f"The body is nested more than {MAX_DEPTH} levels deep.")


def _refuse_characters(root: dict[str, Any]) -> None:
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            if _FORBIDDEN.search(value):
                raise _refusal("A text holds a control character or half of a surrogate pair; FHIR allows neither.")
        elif type(value) is dict:
            waiting.extend(value)
            waiting.extend(value.values())
        elif type(value) is list:
            waiting.extend(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _refusal(f"An object has the name {_shown(name)} more than once.")
    return made


def _shown(name: str) -> str:
    """The name as a short printable text, whatever is in it."""
    return ascii(name if len(name) <= 64 else name[:61] + "...")


def integer(text: str) -> int | Decimal:
    """Integers beyond 64 bits stay exact as decimals: R4 has none, only its decimals may be so long."""
    return int(text) if len(text) <= _INT64_DIGITS else decimal(text)


def decimal(text: str) -> Decimal:
    """The number with its digits. Raises FhirError (400, structure) for more than 64 of them, written out."""
    if len(text) > MAX_DIGITS:
        raise _refusal(f"A number has more than {MAX_DIGITS} digits.")
    number = _EXACT.create_decimal(text)
    # 1e9999 is short to send but long to store and to send back.
    if not number.is_finite() or abs(number.adjusted()) > MAX_DIGITS:
        raise _refusal(f"The number {text} has more than {MAX_DIGITS} digits when written out.")
    return number


def _constant(text: str) -> None:
    raise _refusal(f"{text} is not a JSON number.")


def _number(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _refusal(diagnostics: str) -> FhirError:
    return FhirError(Kind.STRUCTURE, diagnostics)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=integer, parse_float=decimal, parse_constant=_constant)
