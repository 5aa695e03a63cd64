"""The settings PUBLISH_… -> what each tenant publishes beside its rows: places, booking links, extension URLs.

SMART Scheduling Links (Location File, Slot File). Everything is checked when the server starts, so that no aggregator
meets a broken file. Knows neither rows nor HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from fhir_sched.settings import PREFIX, PublishExtensions, Settings
from fhir_sched.validate import resource_issues

_MEMBERS: Final = frozenset({"locations", "defaultLocation", "bookingLink", "bookingPhone", "days", "maxAgeSeconds"})
_PLACEHOLDERS: Final = ("{slot}", "{schedule}")
_ADDRESS: Final = ("line", "city", "state", "postalCode")
_YEAR_S: Final = 365 * 24 * 3600


@dataclass(frozen=True)
class Publication:
    """What one tenant publishes.

    `locations` are Location resources by id, `elsewhere` is the id of that of the schedules which name none. `link` is
    a URL with `{slot}` and `{schedule}` for their ids. Slots that begin within `days` are published (0: all that are to
    come); an answer may be kept for `max_age_s` seconds.
    """

    locations: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    elsewhere: str = ""
    link: str = ""
    phone: str = ""
    days: int = 0
    max_age_s: int = 60
    families: PublishExtensions = PublishExtensions.BOTH

    @property
    def text(self) -> bytes:
        """All of it as bytes that are the same only for the same publication."""
        return repr((dict(self.locations), self.elsewhere, self.link, self.phone, self.days, self.families)).encode()


def publications(settings: Settings) -> dict[str, Publication]:
    """The publication of each tenant in PUBLISH_TENANTS, by UUID. Raises ValueError with one line that says what is
    wrong, and where."""
    given = {} if settings.publish_file is None else _read(settings.publish_file)
    tenants = [str(tenant) for tenant in settings.publish_tenants]
    return {tenant: _publication(given.get(tenant, {}), tenant, settings.publish_extensions) for tenant in tenants}


def problem(settings: Settings) -> str:
    """One line that names the setting to change; "" where nothing is wrong."""
    try:
        publications(settings)
    except ValueError as error:
        return f"{PREFIX}PUBLISH_FILE: {settings.publish_file}: {error}"
    return ""


def _read(path: Path) -> dict[str, Any]:
    """The members of the file by tenant, in lower case."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("must be a JSON object whose members are tenants")  # noqa: TRY004 - of a setting
    return {_tenant(name): value for name, value in found.items()}


def _tenant(name: str) -> str:
    try:
        return str(UUID(name))
    except ValueError:
        raise ValueError(f"{name!r} is not the UUID of a tenant") from None


def _publication(given: Any, tenant: str, families: PublishExtensions) -> Publication:
    if not isinstance(given, dict) or not set(given) <= _MEMBERS:
        raise ValueError(f"{tenant} takes the members {', '.join(sorted(_MEMBERS))}")
    locations = _locations(given.get("locations", []), tenant)
    return Publication(
        locations,
        _elsewhere(given.get("defaultLocation", ""), locations, tenant),
        _link(given.get("bookingLink", ""), tenant),
        _text(given.get("bookingPhone", ""), f"{tenant}.bookingPhone"),
        _number(given.get("days", 0), 0, 3660, f"{tenant}.days"),
        _number(given.get("maxAgeSeconds", 60), 0, _YEAR_S, f"{tenant}.maxAgeSeconds"),
        families,
    )


def _locations(given: Any, tenant: str) -> dict[str, dict[str, Any]]:
    if not isinstance(given, list):
        raise ValueError(f"{tenant}.locations must be a list of Location resources")  # noqa: TRY004 - of a setting
    for number, location in enumerate(given):
        _check_location(location, f"{tenant}.locations[{number}]")
    found = {location["id"]: location for location in given}
    if len(found) != len(given):
        raise ValueError(f"{tenant}.locations: each needs an id of its own")
    return found


def _check_location(location: Any, where: str) -> None:
    """Sound R4, and what SMART Scheduling Links demands besides."""
    issues = resource_issues(location, "Location")
    if issues:
        raise ValueError(f"{where}: {issues[0].expression}: {issues[0].diagnostics}")
    missing = [name for name in ("id", "name", "telecom", "address", "identifier") if name not in location]
    missing += [f"address.{name}" for name in _ADDRESS if name not in location.get("address", dict.fromkeys(_ADDRESS))]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}, which SMART Scheduling Links demands")


def _elsewhere(given: Any, locations: Mapping[str, Any], tenant: str) -> str:
    """The location named, or the only one that there is."""
    if given == "":
        return next(iter(locations)) if len(locations) == 1 else ""
    if given not in locations:
        raise ValueError(f"{tenant}.defaultLocation must be the id of one of its locations, not {given!r}")
    return str(given)


def _link(given: Any, tenant: str) -> str:
    text = _text(given, f"{tenant}.bookingLink")
    bare = text
    for placeholder in _PLACEHOLDERS:
        bare = bare.replace(placeholder, "")
    parts = urlsplit(bare)
    sound = parts.scheme in ("http", "https") and parts.netloc and not set(bare) & set(' <>"{}|\\^`') and bare.isascii()
    if text and not sound:
        raise ValueError(f"{tenant}.bookingLink must be an http(s) URL with {' or '.join(_PLACEHOLDERS)} inside")
    return text


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str) or (given and not given.isprintable()):
        raise ValueError(f"{where} must be a text")
    return given


def _number(given: Any, least: int, most: int, where: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        raise ValueError(f"{where} must be a whole number from {least} to {most}")
    return given
