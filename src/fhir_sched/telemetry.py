"""Whether traces are wanted: OpenTelemetry's standard variables, read once at start.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables. Knows no span; imports nothing of
OpenTelemetry, which is an optional extra.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

log = logging.getLogger("fhir_sched.telemetry")

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables ask for traces that can be sent; a warning is logged where they can't.

    >>> wanted({}), wanted({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    (False, False)
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter == "none" or not (exporter or any(environment.get(name) for name in _ENDPOINTS)):
        return False
    problem = _problem(exporter, next((environment[name] for name in _PROTOCOLS if environment.get(name)), ""))
    if problem:
        log.warning("no traces are sent: %s", problem)
    return not problem


def _problem(exporter: str, protocol: str) -> str:
    """Why they can't be sent, "" where they can."""
    if exporter not in ("", "otlp"):
        return "OTEL_TRACES_EXPORTER can be otlp or none"
    if protocol not in ("", "http/protobuf"):
        return "OTEL_EXPORTER_OTLP_PROTOCOL can be http/protobuf"
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http") and find_spec("opentelemetry.sdk")
    except ModuleNotFoundError:
        found = None
    return "" if found else "the packages are missing; install fhir-sched[otel]"
