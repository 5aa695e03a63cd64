"""`record`: a value that nobody changes, for what is made with every request.

A frozen dataclass sets each field by a call, which takes six times as long as setting it. Here the type checker alone
forbids to change one; a value is compared and hashed by its fields either way. Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(kind: type[Kind]) -> type[Kind]:
    """The class as a dataclass with slots; to assign to a field is an error for the type checker.

    >>> record(type("Pair", (), {"__annotations__": {"left": int, "right": int}}))(1, 2)
    Pair(left=1, right=2)
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)
