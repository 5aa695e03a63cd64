"""Settings of the server: environment variables `FHIR_SCHED_<NAME>` or flags of the same name, checked at start.

A flag wins over the environment, the environment over the default. An empty variable counts as unset.
Knows nothing of the database or of HTTP: it only says what an operator wants.
"""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit
from uuid import UUID

import platformdirs
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fhir_sched import trust
from fhir_sched.trust import web_url

PREFIX: Final = "FHIR_SCHED_"


class SettingsError(Exception):
    """What is wrong with the settings, one line that names the setting."""


class Auth(StrEnum):
    """Who may come in."""

    SMART = "smart"
    OPEN = "open"


class SearchHandling(StrEnum):
    """What an unknown search parameter gets when the request does not say (R4 3.1.1.3.1.1)."""

    LENIENT = "lenient"
    STRICT = "strict"


class PublishExtensions(StrEnum):
    """Under which URLs $bulk-publish says how to book a slot (SMART Scheduling Links, and the guide that HL7 makes)."""

    BOTH = "both"
    SMARTHEALTHIT = "smarthealthit"
    HL7 = "hl7"


class LogLevel(StrEnum):
    """From which level on a line is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class EventPayload(StrEnum):
    """What an event carries."""

    FULL_RESOURCE = "full-resource"
    ID_ONLY = "id-only"


class Settings(BaseSettings):
    """Every setting with its default; the description of a field is the help text of its flag."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    database_url: str | None = Field(
        None, description="libpq URL of the primary, role fhir_sched_app [default: embedded PostgreSQL in DATA_DIR]"
    )
    admin_url: str | None = Field(None, description="libpq URL of the owner of the tables, used by migrate alone")
    replica_url: str | None = Field(None, description="libpq URL of a standby for reads; who has written reads it")
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("fhir-sched", appauthor=False)),
        description="where the embedded PostgreSQL lives [default: the platform's user-data directory]",
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on")
    workers: int = Field(1, ge=1, le=256, description="number of server processes")
    public_url: str | None = Field(None, description="base that appears in links [default: taken from the request]")
    auth: Auth = Field(Auth.SMART, description="smart: bearer tokens; open: no token, on loopback only")
    issuer: str | None = Field(None, description="URL of the trusted SMART authorization server")
    jwks_url: str | None = Field(None, description="URL of its keys, may be a file: URL [default: discovered]")
    issuers: str | None = Field(
        None, description="further ones for named tenants: URL=TENANT|TENANT,… or JSON; ISSUER keeps the other tenants"
    )
    audience: str | None = Field(None, description="audience that a token must name [default: the tenant's FHIR base]")
    tenant_claim: str = Field("tenant_id", min_length=1, description="claim that must equal the tenant in the URL")
    require_fhir_user: bool = Field(
        False, description="on: user/ scopes count only in tokens that say whose they are by fhirUser"
    )
    introspection_url: str | None = Field(
        None, description="ask the authorization server about each token there (RFC 7662) instead of checking JWTs"
    )
    introspection_client_id: str | None = Field(None, description="name by which the server logs in there")
    introspection_client_secret: str | None = Field(None, description="its password; better by the environment")
    smart_configuration: Path | None = Field(
        None, description="JSON file whose members replace those of the issuer's own smart-configuration"
    )
    dev_key: bool = Field(False, description="on: trust the tokens of `fhir-sched token`; on loopback only")
    demo_tenant: UUID = Field(
        UUID("5eed0000-0000-4000-8000-000000000001"), description="tenant that the demo data goes to"
    )
    audit: bool = Field(True, description="on: each interaction leaves an AuditEvent in the database; off: none does")
    search_handling: SearchHandling = Field(
        SearchHandling.LENIENT, description="what an unknown search parameter gets: lenient or strict"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose web pages may call, separated by commas [default: any]"
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="debug, info (a line for each request), warning or error")
    hold_seconds: int = Field(300, ge=1, le=86_400, description="how long $hold keeps a slot")
    offer_seconds: int = Field(900, ge=1, le=604_800, description="how long a slot stays offered to one who waits")
    holds_per_patient: int = Field(3, ge=1, le=1000, description="how many holds a patient may have at once")
    publish_tenants: Annotated[tuple[UUID, ...], NoDecode] = Field(
        (), description="tenants whose slots $bulk-publish shows to everyone, separated by commas"
    )
    publish_file: Path | None = Field(
        None, description="JSON file with what $bulk-publish shows beside slots: locations, booking links"
    )
    publish_extensions: PublishExtensions = Field(
        PublishExtensions.BOTH, description="URLs of its booking extensions: smarthealthit, hl7 or both"
    )

    relay: bool = Field(True, description="off: serve sends no events itself; `fhir-sched relay` does")
    sinks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="URLs that events go to, separated by commas: https:, nats:, file:, stdout:, discard:"
    )
    event_payload: EventPayload = Field(
        EventPayload.FULL_RESOURCE, description="what an event carries: full-resource or id-only"
    )
    webhook_secret: str | None = Field(
        None, description="key that signs webhooks (Standard Webhooks: whsec_…); better by the environment"
    )
    park_after: int = Field(8, ge=1, le=1000, description="how many refusals by a sink park an event")
    keep_events_days: int = Field(
        30, ge=0, le=36_500, description="after how many days published events are removed; 0: never"
    )
    allow_private_endpoints: bool = Field(
        False, description="on: webhooks and Subscriptions may go to private addresses and over http"
    )

    @field_validator("database_url", "admin_url", "replica_url")
    @classmethod
    def _is_libpq_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must be a URL that begins with postgresql://")
        return value

    @field_validator("public_url", "issuer", "introspection_url")
    @classmethod
    def _is_web_url(cls, value: str | None) -> str | None:
        return None if value is None else web_url(value)

    @field_validator("jwks_url")
    @classmethod
    def _is_key_url(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("file:"):
            return value
        return None if value is None else web_url(value, ("http", "https", "file"))

    @field_validator("issuers")
    @classmethod
    def _names_issuers(cls, value: str | None) -> str | None:
        if value is not None:
            trust.parse(value)
        return value

    @field_validator("data_dir", "smart_configuration", "publish_file")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("publish_tenants", "cors_origins", "sinks", mode="before")
    @classmethod
    def _is_comma_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError("must be origins such as https://portal.example, separated by commas")
        return value

    @model_validator(mode="after")
    def _open_is_for_loopback(self) -> Self:
        if self.auth is Auth.OPEN and not is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}AUTH=open serves everything without a token, so {PREFIX}HOST must be a loopback address, "
                f"not {self.host!r}: set AUTH=smart or HOST=127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _development_is_for_loopback(self) -> Self:
        outside = [host for host in (self.host, urlsplit(self.public_url or "").hostname) if host]
        if self.dev_key and not all(map(is_loopback, outside)):
            raise ValueError(
                f"{PREFIX}DEV_KEY=on trusts tokens that anyone who can read DATA_DIR makes, so {PREFIX}HOST and "
                f"{PREFIX}PUBLIC_URL must be loopback addresses: unset it or serve on HOST=127.0.0.1"
            )
        return self

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for a worker process that builds them anew."""
        shown: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or value == ():
                continue
            shown[PREFIX + name.upper()] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        return shown


def load(**flags: Any) -> Settings:
    """The settings of this process: `flags` that are not None, then the environment, then the defaults.

    Raises SettingsError with one line that names every wrong setting.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(dict(item)) for item in error.errors())) from None


def is_loopback(host: str) -> bool:
    """Whether `host` is reached from this machine alone: `localhost` or an address of the loopback range.

    >>> is_loopback("127.0.0.5"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("clinic.example")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _sentence(item: dict[str, Any]) -> str:
    """One error of pydantic as a sentence; a password in a URL is not repeated."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0]).upper()
    if name.endswith(("_URL", "_SECRET", "SINKS")):
        return f"{PREFIX}{name}: {message}"
    return f"{PREFIX}{name}: {message}, not {item['input']!r}"
