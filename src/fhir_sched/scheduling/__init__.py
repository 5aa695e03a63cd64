"""The rules about time that FHIR leaves to a scheduling service."""
