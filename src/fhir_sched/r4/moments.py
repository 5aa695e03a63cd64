"""Comparison of FHIR dates and times of any precision, without loss and for every year of R4.

FHIRPath 6.1 compares what both sides tell and calls the rest unknown; the same comes of intervals: one moment is after
another only when its earliest reading is later than the other's latest. Knows no elements.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from typing import TypeAlias

from fhir_sched.r4.primitives import PATTERNS

# Seconds since year 1 in UTC, and the digits of the fraction: those of "12" come after those of "1", as they should.
Moment: TypeAlias = tuple[int, str]

_DAY = 86_400
_DATE_LENGTH = 10
_WIDEST_OFFSET = 14 * 3600
_is_date_time = PATTERNS["dateTime"].fullmatch
_LATEST_FRACTION = "a"  # sorts after every digit


def is_after(left: str, right: str) -> bool:
    """Whether `left` is surely later than `right`; False for what is no dateTime, which others complain about."""
    if not _is_date_time(left) or not _is_date_time(right):
        return False
    try:
        if len(left) <= _DATE_LENGTH and len(right) <= _DATE_LENGTH:
            return _bounds(left)[0] > _bounds(right)[1]
        return _in_utc(left)[0] > _in_utc(right)[1]
    except ValueError:
        return False  # the 29th of February of a common year


def _in_utc(text: str) -> tuple[Moment, Moment]:
    """Earliest and latest reading; a date without zone may be that date anywhere on earth."""
    (first, first_fraction), (last, last_fraction) = _bounds(text)
    if len(text) > _DATE_LENGTH:
        return (first, first_fraction), (last, last_fraction)
    return (first - _WIDEST_OFFSET, first_fraction), (last + _WIDEST_OFFSET, last_fraction)


def _bounds(text: str) -> tuple[Moment, Moment]:
    day, _, clock = text.partition("T")
    year, month, number = (*map(int, day.split("-")), 0, 0)[:3]
    first = date(year, month or 1, number or 1)
    last = date(year, month or 12, number or monthrange(year, month or 12)[1])
    if not clock:
        return (first.toordinal() * _DAY, ""), (last.toordinal() * _DAY + _DAY - 1, _LATEST_FRACTION)
    moment = (first.toordinal() * _DAY + _seconds(clock), _fraction(clock))
    return moment, moment


def _seconds(clock: str) -> int:
    hours, minutes, seconds = int(clock[:2]), int(clock[3:5]), int(clock[6:8])
    return hours * 3600 + minutes * 60 + seconds - _offset(clock)


def _offset(clock: str) -> int:
    if clock.endswith("Z"):
        return 0
    size = int(clock[-5:-3]) * 3600 + int(clock[-2:]) * 60
    return -size if clock[-6] == "-" else size


def _fraction(clock: str) -> str:
    digits = clock[9:].removesuffix("Z") if clock.endswith("Z") else clock[9:-6]
    return digits.rstrip("0") if clock[8] == "." else ""
