"""Weekly rules of a schedule: the extension `schedule-availability` and the column behind it.

R4 2.4 (Extensibility); what the rules mean is in docs/availability.md, the slots that they give are made by the
database. Knows nothing of SQL or HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson

from fhir_sched.codec import is_code
from fhir_sched.document import dumps
from fhir_sched.extensions import Part
from fhir_sched.outcome import FhirError, Kind

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9](:00)?|24:00(:00)?")
_DAY_MINUTES = 1440
_LEAST_PARTS = 4  # a day, two times and the minutes

RULE_PARTS = (
    ("daysOfWeek", "code", "1", "*", f"A day on which the rule holds: one of {', '.join(DAYS)}"),
    ("startTime", "time", "1", "1", "When the first slot begins, on the clock of the schedule's zone"),
    ("endTime", "time", "1", "1", "When the last slot has ended, on the clock of the schedule's zone"),
    ("slotMinutes", "positiveInt", "1", "1", "How long a slot is, in minutes"),
    ("appointmentType", "code", "0", "1", "The appointmentType of the slots"),
    ("validFrom", "date", "0", "1", "The first day on which the rule holds"),
    ("validTo", "date", "0", "1", "The last day on which the rule holds"),
)
"""The parts of one weekly rule: name, type of the value, cardinality, meaning."""
RULE_VALUE_SETS = {"daysOfWeek": "http://hl7.org/fhir/ValueSet/days-of-week|4.0.1"}
"""R4's value sets that parts of a weekly rule are bound to."""


@dataclass(frozen=True)
class Availability(Part):
    """Weekly rules: one extension for each, `{"rules": [...]}` in the column."""

    @property
    def repeats(self) -> bool:
        return True

    def show(self, stored: bytes | None) -> list[dict[str, Any]]:
        try:
            pattern = orjson.loads(stored) if stored else None
        except orjson.JSONDecodeError:
            return []  # deeper or larger than what is read here
        rules = pattern.get("rules") if isinstance(pattern, dict) else None
        listed = rules if isinstance(rules, list) else ()
        shown = (self._rule_to_fhir(rule) for rule in listed if isinstance(rule, dict))
        return [extension for extension in shown if extension]

    def _rule_to_fhir(self, rule: dict[str, Any]) -> dict[str, Any] | None:
        try:
            parts = [{"url": "daysOfWeek", "valueCode": day} for day in rule["days"] if day in DAYS]
            parts.append({"url": "startTime", "valueTime": _seconds(rule["start"])})
            parts.append({"url": "endTime", "valueTime": _seconds(rule["end"])})
            minutes = int(rule["slotMinutes"])
            parts.append({"url": "slotMinutes", "valuePositiveInt": minutes})
        except (KeyError, TypeError, ValueError, OverflowError):
            return None  # another program's own shape: not a rule that FHIR could show
        if len(parts) < _LEAST_PARTS or not 1 <= minutes <= _DAY_MINUTES:
            return None
        kind = rule.get("appointmentType")
        if isinstance(kind, str) and is_code(kind):
            parts.append({"url": "appointmentType", "valueCode": kind})
        parts += [
            {"url": name, "valueDate": rule[name]} for name in ("validFrom", "validTo") if _is_date(rule.get(name))
        ]
        return {"url": self.url, "extension": parts}

    def read(self, found: list[dict[str, Any]], where: str) -> bytes | None:
        if not found:
            return None
        return dumps({"rules": [_rule(extension, where) for extension in found]})


def _seconds(text: str) -> str:
    if not _TIME.fullmatch(text) or text.startswith("24"):
        raise ValueError(text)
    return text if len(text) == 8 else f"{text}:00"


def _rule(extension: dict[str, Any], where: str) -> dict[str, Any]:
    parts: dict[str, list[Any]] = {}
    for part in extension.get("extension", ()):
        value = next((content for name, content in part.items() if name.startswith("value")), None)
        parts.setdefault(part.get("url", ""), []).append(value)
    days = parts.get("daysOfWeek", [])
    start, end = (_one(parts, name, where) for name in ("startTime", "endTime"))
    minutes = _one(parts, "slotMinutes", where)
    if not days or any(day not in DAYS for day in days):
        raise _broken(f"daysOfWeek must be some of {', '.join(DAYS)}", where)
    for name, text in (("startTime", start), ("endTime", end)):
        if not isinstance(text, str) or not _TIME.fullmatch(text):
            raise _broken(f"{name} must be a local time in whole minutes such as 09:00:00", where)
    if start >= end:
        raise _broken(f"startTime {start} must be before endTime {end}", where)
    if not isinstance(minutes, int) or isinstance(minutes, bool) or not 1 <= minutes <= _DAY_MINUTES:
        raise _broken("slotMinutes must be a whole number from 1 to 1440", where)
    valid = [_one(parts, name, where, optional=True) for name in ("validFrom", "validTo")]
    if any(day is not None and not _is_date(day) for day in valid):
        raise _broken("validFrom and validTo must be dates such as 2026-06-01", where)
    return {
        "days": days,
        "start": start[:5],
        "end": end[:5],
        "slotMinutes": minutes,
        "appointmentType": _one(parts, "appointmentType", where, optional=True),
        "validFrom": valid[0],
        "validTo": valid[1],
    }


def _one(parts: dict[str, list[Any]], name: str, where: str, *, optional: bool = False) -> Any:
    values = parts.get(name, [])
    if len(values) > 1 or (not values and not optional):
        raise _broken(f"a rule has {name} once", where)
    return values[0] if values else None


def _is_date(text: Any) -> bool:
    try:
        return isinstance(text, str) and len(text) == 10 and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _broken(why: str, where: str) -> FhirError:
    return FhirError(Kind.BUSINESS_RULE, f"schedule-availability: {why}", where)
