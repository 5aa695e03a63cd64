"""The channel of a Subscription: where notifications go, what is in them, how often. Subscriptions R5 Backport 1.1.0.

Law: what is not served is refused when it is asked for, never accepted in silence; a stored channel is therefore read
without further questions. Knows neither topics nor who subscribes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fhir_sched.outcome import Issue, Kind

BACKPORT: Final = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
CONTENTS: Final = ("empty", "id-only", "full-resource")
JSON_TYPES: Final = ("application/fhir+json", "application/json")
XML_TYPES: Final = ("application/fhir+xml", "application/xml")
MAX_TIMEOUT_S: Final = 60
MAX_EVENTS: Final = 100
_TIMEOUT_S: Final = 10
_EVENTS: Final = 20
_WHERE: Final = "Subscription.channel"
_HEADER: Final = re.compile(
    r"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}):[ \t]*(?P<value>[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)"
)
_OURS: Final = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Channel:
    """A rest-hook. `heartbeat_s` is 0 for none; a notification has `max_count` events at most."""

    endpoint: str
    headers: tuple[tuple[str, str], ...]
    payload: str
    content: str
    timeout_s: int = _TIMEOUT_S
    heartbeat_s: int = 0
    max_count: int = _EVENTS

    @property
    def is_xml(self) -> bool:
        """Whether notifications are sent in XML."""
        return self.payload.partition(";")[0].strip().lower() in XML_TYPES


def channel(document: dict[str, Any]) -> Channel:
    """The channel of a Subscription that `refusals` had nothing against."""
    given = document["channel"]
    return Channel(
        given["endpoint"],
        tuple((found["name"], found["value"]) for found in map(_HEADER.fullmatch, given.get("header", ())) if found),
        given["payload"],
        str(_extension(given.get("_payload"), "backport-payload-content") or "empty"),
        _number(given, "backport-timeout") or _TIMEOUT_S,
        _number(given, "backport-heartbeat-period") or 0,
        min(_number(given, "backport-max-count") or _EVENTS, MAX_EVENTS),
    )


def refusals(document: dict[str, Any]) -> Iterator[Issue]:
    """Everything about the channel of a valid Subscription that is not served."""
    given = document["channel"]
    if given["type"] != "rest-hook":
        yield _refused(f"channels of type {given['type']!r} are not served; write 'rest-hook'", "type")
    if _extension(given.get("_type"), "backport-channel-type") is not None:
        yield _refused("channel types beside R4's own are not served; leave backport-channel-type out", "type")
    if "endpoint" not in given:
        yield _refused("a rest-hook needs an endpoint: the https URL that notifications are posted to", "endpoint")
    kind, _, _ = str(given.get("payload", "")).partition(";")
    if kind.strip().lower() not in (*JSON_TYPES, *XML_TYPES):
        yield _refused(f"payload must be one of {', '.join((*JSON_TYPES, *XML_TYPES))}", "payload")
    content = _extension(given.get("_payload"), "backport-payload-content")
    if content not in CONTENTS:
        yield _refused(
            f"payload needs the extension {BACKPORT}backport-payload-content with one of {', '.join(CONTENTS)} as "
            "valueCode: how much a notification tells",
            "payload",
        )
    yield from _numbers(given)
    yield from _headers(given.get("header", ()))


def _numbers(given: dict[str, Any]) -> Iterator[Issue]:
    for name, low, high in (
        ("backport-timeout", 1, MAX_TIMEOUT_S),
        ("backport-heartbeat-period", 0, 31_536_000),
        ("backport-max-count", 1, 2_147_483_647),
    ):
        value = _extension(given, name)
        if value is not None and not (type(value) is int and low <= value <= high):
            yield _refused(f"{name} must be a whole number from {low} to {high}", "extension")


def _headers(given: Any) -> Iterator[Issue]:
    for index, text in enumerate(given):
        found = _HEADER.fullmatch(text or "")
        # The value of a header is a secret; a refusal does not repeat it.
        if found is None:
            yield _refused("a header is written 'Name: value', on one line and in ASCII", f"header[{index}]")
        elif found["name"].lower() in _OURS:
            yield _refused(f"the header {found['name']} is set by the server", f"header[{index}]")


def _number(given: dict[str, Any], name: str) -> int | None:
    value = _extension(given, name)
    return value if isinstance(value, int) else None


def _extension(element: Any, name: str) -> Any:
    """The value of an extension of the Backport on an element (of a primitive: on its sibling); None without one."""
    return next(extension_values(element, name), None)


def extension_values(element: Any, name: str) -> Iterator[Any]:
    """The values of all extensions of the Backport with that name, whatever their type."""
    for item in (element or {}).get("extension", ()):
        if item.get("url") == BACKPORT + name:
            yield next((value for key, value in item.items() if key.startswith("value")), "")


def _refused(sentence: str, element: str) -> Issue:
    return Issue(Kind.BUSINESS_RULE, sentence, f"{_WHERE}.{element}")
