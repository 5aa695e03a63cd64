"""One search value, text -> Value, by the type of the parameter. R4 3.1.1.4.5 to 3.1.1.4.13.

Every refusal is a 400 that names the parameter. Knows nothing of SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import unquote_plus

from fhir_sched import codec
from fhir_sched.definition import DateParam, Param, ReferenceParam, TokenParam
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.reference import target
from fhir_sched.search.query import DateValue, ReferenceValue, TokenValue, UriValue, Value

_PREFIX = re.compile(r"[a-z]{2}(?=[0-9])")
_PREFIXES = frozenset({"eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"})
_SPACE_OFFSET = re.compile(r"(T\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (\d\d:\d\d)$")
_LONGEST_DATE = 64
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def form(text: str) -> list[tuple[str, str]]:
    """The decoded pairs of a query string, in order. Raises 400 where a percent escape is not UTF-8."""
    try:
        pairs = (part.partition("=") for part in text.split("&") if part)
        return [(_decoded(name), _decoded(value)) for name, _, value in pairs]
    except UnicodeError:
        raise FhirError(Kind.VALUE, "the parameters must be percent-encoded UTF-8") from None


def _decoded(text: str) -> str:
    return unquote_plus(text, errors="strict") if "%" in text or "+" in text else text


def split(text: str, separator: str) -> list[str]:
    """The parts between unescaped separators, escapes still in place.

    >>> split("a\\\\,b,c", ",")
    ['a\\\\,b', 'c']
    """
    if "\\" not in text:
        return text.split(separator)
    parts = [""]
    letters = iter(text)
    for letter in letters:
        if letter == "\\":
            parts[-1] += letter + next(letters, "")
        elif letter == separator:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def unescape(text: str, name: str) -> str:
    """The text without its escapes. Raises 400 for a backslash that escapes nothing (R4 3.1.1.4.4)."""
    if "\\" not in text:
        return text
    return "".join(_unescaped(text, name))


def _unescaped(text: str, name: str) -> Iterator[str]:
    letters = iter(text)
    for letter in letters:
        if letter == "\\":
            escaped = next(letters, "")
            if escaped not in (",", "$", "|", "\\"):
                raise _invalid(name, r"a backslash may only stand before , $ | or another backslash")
            yield escaped
        else:
            yield letter


def value(param: Param, text: str, base: str, modifier: str = "") -> Value:
    """The value of one parameter; `modifier` may be a type name or `identifier` for a reference."""
    if "\x00" in text:
        raise _invalid(param.name, "a value can't hold the character NUL")
    match param:
        case DateParam():
            return date(param.name, text)
        case TokenParam() if modifier == "text":
            return TokenValue(None, codec.plain(unescape(text, param.name)))
        case TokenParam():
            return _token(param, text)
        case ReferenceParam() if modifier == "identifier":
            return _token(TokenParam(param.name, "", ""), text)
        case ReferenceParam():
            return _reference(param, unescape(text, param.name), base, modifier)
        case _:
            return UriValue(unescape(text, param.name))


def date(name: str, text: str) -> DateValue:
    """A date with its prefix. Raises 400 for what is none."""
    found = _dated(text) if len(text) <= _LONGEST_DATE else None
    if found is None:
        raise _invalid(
            name,
            f"{text!r} is not a date; write YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm[:ss[.fff]][Z|+hh:mm], "
            "with one of eq ne gt lt ge le sa eb ap in front if wanted",
        )
    if found.prefix == "ap":
        low, high = _widened(found.low, found.high, found.local)
        return DateValue("ap", low, high, found.local)
    return found


def with_plus(text: str) -> str:
    """The date with the `+` of its offset, which arrives as a space where a client does not escape it in a URL."""
    return _SPACE_OFFSET.sub(r"\1+\2", text)


@lru_cache(maxsize=2048)
def _dated(text: str) -> DateValue | None:
    """The interval that is written, by its prefix; remembered, since many ask for the same days."""
    written = with_plus(text)
    prefix = _PREFIX.match(written)
    covered = codec.interval(written[2:] if prefix else written)
    if covered is None or (prefix and prefix[0] not in _PREFIXES):
        return None
    return DateValue(prefix[0] if prefix else "eq", covered.low, covered.high, covered.local)


def _widened(low: datetime, high: datetime, local: bool) -> tuple[datetime, datetime]:
    """`ap`: a tenth of the distance to now on both sides (R4 3.1.1.4.5)."""
    now = datetime.now(UTC)
    distance = abs(now - (low.replace(tzinfo=UTC) if local else low)) / 10
    try:
        return low - distance, high + distance
    except OverflowError:
        return low, high


def _token(param: TokenParam, text: str) -> TokenValue:
    parts = split(text, "|")
    if len(parts) == 1:
        code = unescape(text, param.name)
        if param.kind == "boolean" and code not in param.codes:
            raise _invalid(param.name, f"{code!r} is not a boolean; write true or false")
        return TokenValue(None, code)
    if len(parts) > 2 or param.kind == "boolean" or (param.kind == "id" and parts[0]):
        raise _invalid(param.name, f"{text!r} is not a token; write code, system|code, |code or system|")
    system, code = (unescape(part, param.name) for part in parts)
    if not system and not code:
        raise _invalid(param.name, "a token needs a system or a code beside the |")
    return TokenValue(system, code or None)


def _reference(param: ReferenceParam, text: str, base: str, modifier: str) -> ReferenceValue:
    if _ID.fullmatch(text):
        only = param.targets[0] if len(param.targets) == 1 else ""
        return ReferenceValue(modifier or only, text)
    found = target(text, base)
    if found is None or (found.url and "/" not in found.url and ":" not in found.url):
        raise _invalid(param.name, f"{text!r} is not a reference; write an id, Type/id or an absolute URL")
    if modifier and found.type and found.type != modifier:
        raise _invalid(param.name, f"{text!r} contradicts the type :{modifier}")
    return ReferenceValue(found.type or modifier, found.id, found.url)


def _invalid(name: str, why: str) -> FhirError:
    return FhirError(Kind.VALUE, f"search parameter {name}: {why}", None)


def far(moment: datetime, hours: int) -> datetime:
    """The moment moved by hours, held inside the years that can be written."""
    try:
        return moment + timedelta(hours=hours)
    except OverflowError:
        return moment
