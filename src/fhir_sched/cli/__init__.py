"""The command `fhir-sched`: `commands`, and a module for each group of further ones, which joins it when imported."""

from fhir_sched.cli import relay, rules
from fhir_sched.cli.commands import main

__all__ = ["main", "relay", "rules"]
