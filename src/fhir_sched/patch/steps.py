"""The text of a FHIRPath that names a place -> its steps. FHIRPath 2.0 (N1) section 4, as far as a patch may go.

A path is members, indexes and a few functions that select, one after the other; what they do is known elsewhere.
Criteria inside `where(...)` stay text. Linear in the length of the path, whatever is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from fhir_sched.outcome import FhirError, Kind
from fhir_sched.patch.limits import MAX_PATH

NO_ARGUMENT = ("first", "last", "tail", "single")
WITH_ARGUMENT = ("where", "extension", "ofType", "as", "skip", "take")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|`[A-Za-z_][A-Za-z0-9_]*`")
_INDEX = re.compile(r"\[\s*([0-9]{1,9})\s*\]")
# Up to the next character that opens or closes something; a quoted text is passed over in one step.
_ARGUMENT = re.compile(r"(?:[^()'\\]++|'(?:[^'\\]++|\\.)*+')*+")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Member:
    """The element of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """The one at that position, from 0."""

    position: int


@dataclass(frozen=True, slots=True)
class Function:
    """A function that selects, with its argument as written."""

    name: str
    argument: str


Step = Member | Index | Function


@lru_cache(maxsize=1024)
def steps(path: str) -> tuple[Step, ...]:
    """The steps of a path. Raises 400 for what is no path, or one with functions that a patch may not use."""
    if len(path) > MAX_PATH:
        raise FhirError(Kind.VALUE, f"a path may have {MAX_PATH} characters")
    found: list[Step] = []
    at = _space(path, 0)
    while True:
        step, at = _named_step(path, at)
        found.append(step)
        at = _space(path, at)
        while match := _INDEX.match(path, at):
            found.append(Index(int(match[1])))
            at = _space(path, match.end())
        if at == len(path):
            return tuple(found)
        if path[at] != ".":
            raise _refusal(path, at)
        at = _space(path, at + 1)


def _space(path: str, at: int) -> int:
    match = _SPACE.match(path, at)
    return match.end() if match else at


def _named_step(path: str, at: int) -> tuple[Step, int]:
    match = _NAME.match(path, at)
    if match is None:
        raise _refusal(path, at)
    name, at = match[0].strip("`"), _space(path, match.end())
    if not path.startswith("(", at):
        return Member(name), at
    argument, at = _argument(path, at + 1)
    if name in NO_ARGUMENT and argument:
        raise FhirError(Kind.VALUE, f"{name}() takes no argument")
    if name in WITH_ARGUMENT and not argument:
        raise FhirError(Kind.VALUE, f"{name}(…) needs an argument")
    if name not in NO_ARGUMENT + WITH_ARGUMENT:
        known = ", ".join(sorted(NO_ARGUMENT + WITH_ARGUMENT))
        raise FhirError(Kind.NOT_SUPPORTED, f"the function {name}() has no place in the path of a patch; use {known}")
    return Function(name, argument), at


def _argument(path: str, start: int) -> tuple[str, int]:
    """The text up to the closing parenthesis, and where it goes on after that."""
    at, open_ones = start, 1
    while open_ones:
        match = _ARGUMENT.match(path, at)
        at = match.end() if match else at
        if at == len(path) or path[at] not in "()":
            raise _refusal(path, at)
        open_ones += 1 if path[at] == "(" else -1
        at += 1
    return path[start : at - 1].strip(), at


def _refusal(path: str, at: int) -> FhirError:
    what = "it ends too early" if at >= len(path) else f"{path[at : at + 20]!a} is not expected"
    return FhirError(
        Kind.VALUE,
        f"{path[:100]!a} is no path that a patch may use: {what} at character {at + 1}; "
        "write one such as Appointment.participant[0].status",
    )
