"""FHIR R4 facade for scheduling: Schedule, Slot and Appointment over a PostgreSQL scheduling schema."""

__version__ = "0.1.0"
