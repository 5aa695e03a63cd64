"""The declarations -> CapabilityStatement. R4 5.3."""

from __future__ import annotations

from typing import Any


def statement(base: str) -> dict[str, Any]:
    """The CapabilityStatement of the server at that base."""
    return {"resourceType": "CapabilityStatement"}
