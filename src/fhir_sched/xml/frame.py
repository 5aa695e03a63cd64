"""An XML element that is open while a document is read, and how its content goes into the JSON object it becomes.

Repeating primitives become two arrays of one length (R4 2.6.2.3). Knows neither tags nor what is allowed.
"""

from __future__ import annotations

from typing import Any

from fhir_sched.xml.plan import Child, Plan

_NONE: tuple[str, ...] = ()


class Frame:
    """One open element: `target` is what its content goes to, `depth` the levels of JSON down to there.

    `plan` is None where exactly one resource has to follow; `seen` says that it did. A primitive's `target` is its
    underscore sibling, its `value` what the attribute says. `rank` is that of the child which is furthest down in the
    schema so far. The outermost frame is its own parent.
    """

    __slots__ = ("_ragged", "child", "depth", "index", "parent", "plan", "rank", "seen", "target", "value")

    def __init__(
        self, plan: Plan | None, target: dict[str, Any], parent: Frame | None, child: Child | None, index: int = 0
    ) -> None:
        self.plan, self.target, self.child, self.index = plan, target, child, index
        self.parent = self if parent is None else parent
        self.depth: int = 0 if parent is None else parent.depth
        self.value: Any = None
        self.seen = False
        self.rank = 0
        self._ragged = _NONE  # repeating primitives that have siblings

    def add_sibling(self, child: Child, index: int, sibling: dict[str, Any]) -> None:
        """Put id and extensions of a primitive where JSON has them; `index` is the primitive's place in its array."""
        name = f"_{child.name}"
        if not child.repeats:
            self.target[name] = sibling
            return
        if name not in self.target:
            self.target[name] = []
            self._ragged += (child.name,)
        siblings = self.target[name]
        siblings += [None] * (index - len(siblings))
        siblings.append(sibling)

    def level(self) -> None:
        """When all is read: give both arrays one length, and leave out an array in which no place has a value."""
        for name in self._ragged:
            values, siblings = self.target[name], self.target[f"_{name}"]
            siblings += [None] * (len(values) - len(siblings))
            if all(value is None for value in values):
                del self.target[name]


def attach(target: dict[str, Any], child: Child, value: Any) -> int:
    """Put a value where JSON has it; gives its index in an array, else 0."""
    if not child.repeats:
        target[child.name] = value
        return 0
    values: list[Any] = target.setdefault(child.name, [])
    values.append(value)
    return len(values) - 1
