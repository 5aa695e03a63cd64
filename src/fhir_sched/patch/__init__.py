"""PATCH: a document and what shall change in it -> the changed document. Pure. R4 3.1.0.6, RFC 6902, R4 fhirpatch."""

from __future__ import annotations

JSON_PATCH = "application/json-patch+json"

FORMATS = (JSON_PATCH, "application/fhir+json", "application/fhir+xml")
"""The media types of a PATCH body: a JSON Patch, or the Parameters of a FHIRPath Patch in JSON or XML."""
