"""What the entries of a transaction change: each resource by one entry only. R4 3.1.0.11.2.

Interactions with criteria count as what they resolve to, which is known when their turn has come. Knows no Bundle.
"""

from __future__ import annotations

from collections import Counter

from fhir_sched.interactions.call import Call
from fhir_sched.interactions.conditional import only_match
from fhir_sched.interactions.context import Answer, Context
from fhir_sched.interactions.dispatch import criteria
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.resources import RESOURCES


class Changes:
    """The resources that entries have changed so far, by `Type/id`; `calls` are those of all entries as they came."""

    def __init__(self, context: Context, calls: list[Call]) -> None:
        self._context, self._calls = context, calls
        self._by: dict[str, int] = {}
        once = Counter(call.path[0] for call in calls if call.none_exist is not None and len(call.path) == 1)
        # One alone has been looked up when ids were chosen.
        self._several = {kind for kind, count in once.items() if count > 1}

    async def claim(self, index: int, call: Call) -> None:
        """Before a call is performed: raises 400 where another entry has changed, or made, what it is about."""
        target = await self._target(index, call)
        if target:
            self._note(index, target)

    def made(self, index: int, call: Call, answer: Answer) -> None:
        """After a call was performed: what it has written, where that was not known before. Raises as `claim` does."""
        if call.method in ("POST", "PUT", "PATCH") and len(call.path) == 1 and answer.location:
            whole, _, _ = answer.location.partition("/_history/")
            target = whole.removeprefix(f"{self._context.base}/")
            if call.method == "POST":
                self._by.setdefault(target, index)
            else:
                self._note(index, target)

    async def _target(self, index: int, call: Call) -> str:
        resource = RESOURCES.get(call.path[0]) if call.path else None
        if resource is None:
            return ""
        found = None
        if call.method in ("PUT", "PATCH", "DELETE") and len(call.path) == 2:
            return "/".join(call.path)
        if call.method == "DELETE" and len(call.path) == 1:
            # afterwards nobody can tell; a change by criteria says itself what it has found
            found = await only_match(self._context, resource, call.pairs)
        elif call.method == "POST" and len(call.path) == 1 and resource.type in self._several:
            wanted = self._calls[index].none_exist
            found = None if wanted is None else await only_match(self._context, resource, criteria(wanted))
        return f"{resource.type}/{found}" if found else ""

    def _note(self, index: int, target: str) -> None:
        first = self._by.setdefault(target, index)
        if first != index:
            raise FhirError(Kind.INVALID, f"entries {first} and {index} both change {target}")
