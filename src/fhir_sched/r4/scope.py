"""What surrounds a value while it is checked: the resource that owns local references, and what is allowed there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from fhir_sched.r4.finding import Findings


class Scope(NamedTuple):
    """`contained` tells the type of each contained resource by its id; `inside` is true within one of them.

    `conditional` allows references by search (`Patient?identifier=1`), as in transactions. Resources that are entries
    of a Bundle or parameters are checked only when `nested`.
    """

    contained: Mapping[str, str]
    inside: bool = False
    conditional: bool = False
    nested: bool = True


Check: TypeAlias = Callable[[Any, Scope], Findings | None]
