"""References: `Patient/<uuid>`, `Patient/123`, absolute URLs, identifiers -> the UUID that a column holds.

R4 2.3 (References). A reference that names no UUID gets a stable one (RFC 4122 version 5 of its text), so that a
uuid column can stand for it and be searched; what the client wrote is kept beside the column by `mapping`.
Knows nothing of tables.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122's namespace for URLs
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_RELATIVE = re.compile(r"(?:(?P<base>[A-Za-z][A-Za-z0-9+.-]*://.*/))?(?P<type>[A-Z][A-Za-z]{1,63})/"
                       r"(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What a reference points at: a type and an id on this server, or the URL of something elsewhere.

    `type` is empty where nothing tells it; `url` is empty for a reference on this server.
    """

    type: str
    id: str
    url: str = ""

    @property
    def uuid(self) -> str:
        """The UUID of the column: the id itself when it is one, otherwise a stable one of the whole reference."""
        if not self.url and _UUID.fullmatch(self.id):
            return self.id.lower()
        return str(uuid.uuid5(_NAMESPACE, self.url or f"{self.type}/{self.id}"))


def target(text: str, base: str, type_hint: str = "") -> Target | None:
    """Where the text of a `Reference.reference` points; None for a contained one (`#x`) and for an empty text.

    `base` is this server's FHIR base: an absolute URL below it is the same as the relative reference.

    >>> target("Patient/123/_history/4", "http://x/fhir/t")
    Target(type='Patient', id='123', url='')
    """
    if not text or text.startswith("#"):
        return None
    found = _RELATIVE.fullmatch(text)
    if found is None:
        return Target(type_hint, "", text)
    if found["base"] and found["base"] != base + "/":
        return Target(found["type"], "", text)
    return Target(found["type"], found["id"])


def of_element(value: Any, base: str) -> Target | None:
    """The target of a Reference element: its `reference`, else a stand-in for its `identifier`; None for neither."""
    if not isinstance(value, dict):
        return None
    hint = str(value.get("type", ""))
    text = value.get("reference")
    if isinstance(text, str):
        return target(text, base, hint)
    identifier = value.get("identifier")
    if isinstance(identifier, dict) and identifier.get("value"):
        return Target(hint, "", f"identifier:{identifier.get('system', '')}|{identifier['value']}")
    return None


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID in its usual form."""
    return _UUID.fullmatch(text) is not None
