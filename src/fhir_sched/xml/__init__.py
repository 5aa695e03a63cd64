"""FHIR's XML beside its JSON (R4 2.6.1): a resource read from one form is the same document as from the other."""

from fhir_sched.xml.reading import from_xml
from fhir_sched.xml.writing import to_xml

__all__ = ["from_xml", "to_xml"]
