"""One file for each FHIR interaction (R4 3.1.0): resource or query in, Answer out. No HTTP in here."""
