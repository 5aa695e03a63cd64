"""The rules of a clinic that a booking must fulfil: their names, units, defaults, and what a refusal says.

The database holds and applies them (`booking_rules` and its trigger); the command line, the refusals and docs/rules.md
read them here, and a test holds the defaults of both together. Knows no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fhir_sched.outcome import Issue, Kind

CALLERS: Final = ("portal", "staff", "hl7")
"""Who asks, in the words of `appointment-source`: a patient's token, a user's, a system's."""

ANYONE: Final = "any"
"""Stands for the caller of a rule that is about nobody's request."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: `unit` is switch (on, off), minutes or days; `defaults` are by caller, absent ones mean no limit.

    `sentence` is the refusal, with `{limit}` for the value in words; `at` the element that it is about.
    """

    name: str
    unit: str
    doc: str
    sentence: str = ""
    at: str = "Appointment.start"
    defaults: Mapping[str, int] = field(default_factory=dict)
    callers: tuple[str, ...] = CALLERS

    def parse(self, text: str) -> int | None:
        """The number for a value as a person writes it; None for `none`. Raises ValueError with what would be right."""
        if text == "none" and self.unit != "switch":
            return None
        if self.unit == "switch":
            if text not in ("on", "off"):
                raise ValueError(f"{self.name} is on or off, not {text!r}")
            return int(text == "on")
        if not (text.isascii() and text.isdecimal() and int(text) <= _LARGEST):
            raise ValueError(f"{self.name} is a whole number of {self.unit} up to {_LARGEST}, or none; not {text!r}")
        return int(text)

    def show(self, value: int | None) -> str:
        """A value as `parse` takes it."""
        if self.unit == "switch":
            return "on" if value else "off"
        return "none" if value is None else str(value)

    def default(self, caller: str) -> int | None:
        """What holds for a caller where nobody said anything."""
        return self.defaults.get(caller, 0 if self.unit == "switch" else None)


_LARGEST: Final = 5_000_000

RULES: Final[Mapping[str, Rule]] = {
    rule.name: rule
    for rule in (
        Rule(
            "future-only",
            "switch",
            "nothing is booked at, or moved to, a time that has begun",
            "the time has begun; book one that lies ahead",
            defaults={"portal": 1},
        ),
        Rule(
            "book-notice",
            "minutes",
            "how long before its start an appointment is booked, or moved there, at the latest",
            "it is booked {limit} before its start at the latest",
        ),
        Rule(
            "book-horizon",
            "days",
            "how far ahead an appointment may lie",
            "it may lie {limit} ahead at most",
        ),
        Rule(
            "move-notice",
            "minutes",
            "how long before its present start an appointment is moved at the latest",
            "it is moved {limit} before its present start at the latest; the clinic may do it later",
        ),
        Rule(
            "cancel-notice",
            "minutes",
            "how long before its start an appointment is cancelled or deleted at the latest; a pending one always",
            "it is cancelled {limit} before its start at the latest; the clinic may do it later",
            "Appointment.status",
        ),
        Rule(
            "adjacent-slots",
            "switch",
            "slots of one schedule follow each other without a gap; one of another schedule (a room) lies around them",
            "its slots must follow each other without a gap, and those of another schedule lie around their time",
            "Appointment.slot",
            defaults={"portal": 1},
        ),
        Rule(
            "times-of-slots",
            "switch",
            "an appointment starts with the first and ends with the last of its slots (not those of a room)",
            "its start and end must be those of its slots",
        ),
        Rule(
            "status-order",
            "switch",
            "a status is followed by one that makes sense after it, see below",
            defaults=dict.fromkeys(CALLERS, 1),
        ),
        Rule(
            "override",
            "switch",
            "the extension `override-reason` sets aside every other rule of this table but `status-order`",
            defaults={"staff": 1, "hl7": 1},
            callers=("staff", "hl7"),
        ),
        Rule(
            "waitlist-offers",
            "switch",
            "a slot that becomes free is offered to the one who waits for it",
            defaults={ANYONE: 1},
            callers=(ANYONE,),
        ),
    )
}


def refusals(detail: str) -> list[Issue]:
    """The issues for what the database found broken: `rule` or `rule limit`, separated by commas."""
    return [_refusal(*part.split()) for part in detail.split(",")]


def _refusal(name: str, limit: str = "0") -> Issue:
    rule = RULES[name]
    sentence = rule.sentence.format(limit=_words(int(limit), rule.unit))
    return Issue(Kind.BUSINESS_RULE, f"{rule.name}: {sentence}.", rule.at)


def _words(number: int, unit: str) -> str:
    """
    >>> _words(1440, "minutes"), _words(90, "minutes"), _words(1, "days")
    ('24 hours', '90 minutes', '1 day')
    """
    if unit == "minutes" and number and number % 60 == 0:
        number, unit = number // 60, "hours"
    return f"{number} {unit.removesuffix('s') if number == 1 else unit}"
