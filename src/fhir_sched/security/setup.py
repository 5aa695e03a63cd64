"""Whether the settings of AUTH=smart can work, asked before the server starts.

Knows no token; what only a running authorization server can tell is found out by the first request.
"""

from __future__ import annotations

import asyncio

from fhir_sched.security.fetching import Fetcher, FetchError
from fhir_sched.security.issuers import Issuers
from fhir_sched.settings import PREFIX, Auth, Settings, is_loopback


def problem(settings: Settings) -> str:
    """One line that names the setting to change; "" where nothing is wrong."""
    if settings.auth is Auth.OPEN:
        return ""
    if not (settings.issuer or settings.issuers or settings.introspection_url or settings.dev_key):
        return (
            f"{PREFIX}AUTH=smart needs somebody whose tokens are trusted: set {PREFIX}ISSUER to the URL of the "
            f"authorization server, or {PREFIX}DEV_KEY=on for tokens of `fhir-sched token`, or {PREFIX}AUTH=open"
        )
    if settings.jwks_url and not settings.issuer:
        return f"{PREFIX}ISSUER: {PREFIX}JWKS_URL has an issuer's keys, so name the issuer too"
    if not is_loopback(settings.host) and not settings.public_url and not settings.audience:
        return (
            f"{PREFIX}PUBLIC_URL: on an address that others can reach tokens must name this server, so say by "
            f"{PREFIX}PUBLIC_URL what its URL is, or by {PREFIX}AUDIENCE what tokens call it"
        )
    return asyncio.run(_unreadable(settings))


async def _unreadable(settings: Settings) -> str:
    """What is wrong with a file that the settings name."""
    fetcher = Fetcher()
    if settings.smart_configuration is not None:
        try:
            await fetcher.get(settings.smart_configuration.as_uri())
        except FetchError as error:
            return f"{PREFIX}SMART_CONFIGURATION: {settings.smart_configuration}: {error}"
    for issuer in Issuers(settings, fetcher).by_url.values():
        try:
            if issuer.keys.local:
                await issuer.keys.check()
        except FetchError as error:
            return f"the keys of {issuer.url} can't be read: {error}"
    return ""
