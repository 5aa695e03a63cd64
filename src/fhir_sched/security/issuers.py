"""The authorization servers that the settings trust: the keys, the document and the tenants of each.

An issuer that ISSUERS names for tenants speaks for those alone; ISSUER speaks for all others. The development key
speaks for every tenant, where it is trusted. Knows no token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fhir_sched.security import development
from fhir_sched.security.discovery import Discovery
from fhir_sched.security.fetching import Fetcher
from fhir_sched.security.jwks import IssuerKeys
from fhir_sched.settings import Settings
from fhir_sched.trust import TrustedIssuer, parse


@dataclass(frozen=True, slots=True)
class Issuer:
    """One authorization server; `discovery` is None for the development key, which has none."""

    url: str
    keys: IssuerKeys
    discovery: Discovery | None


class Issuers:
    """`by_url` holds them all; `development` is the `iss` of development tokens, "" where they are not trusted."""

    def __init__(self, settings: Settings, fetcher: Fetcher) -> None:
        trusted = list(parse(settings.issuers)) if settings.issuers else []
        if settings.issuer:
            trusted.append(TrustedIssuer(settings.issuer.rstrip("/"), None, settings.jwks_url or ""))
        self.by_url = {each.url: _issuer(each, fetcher) for each in trusted}
        everywhere = set()
        self.development = ""
        if settings.dev_key:
            self.development = development.ISSUER
            everywhere.add(development.ISSUER)
            load = partial(development.key_set, settings.data_dir)
            keys = IssuerKeys("the development key", load, local=True)
            self.by_url[development.ISSUER] = Issuer(development.ISSUER, keys, None)
        general = [each.url for each in trusted if each.tenants is None]
        if settings.introspection_url and not trusted:
            general.append(settings.introspection_url)
        self._general = frozenset({*general, *everywhere})
        self._named: dict[str, frozenset[str]] = {}
        for each in trusted:
            for tenant in each.tenants or ():
                self._named[tenant] = self._named.get(tenant, frozenset(everywhere)) | {each.url}

    def speaks_for(self, issuer: str, tenant: str) -> bool:
        """Whether tokens of that issuer count for the tenant."""
        return issuer in self._named.get(tenant, self._general)

    def discovery(self, tenant: str) -> Discovery | None:
        """The authorization server that a SMART app of that tenant is sent to; None where there is none."""
        for issuer in sorted(self._named.get(tenant, self._general)):
            if issuer in self.by_url and self.by_url[issuer].discovery is not None:
                return self.by_url[issuer].discovery
        return None

    async def close(self) -> None:
        """End what is under way."""
        for issuer in self.by_url.values():
            await issuer.keys.close()
            if issuer.discovery is not None:
                await issuer.discovery.close()


def _issuer(trusted: TrustedIssuer, fetcher: Fetcher) -> Issuer:
    discovery = Discovery(trusted.url, fetcher)
    load = partial(fetcher.get, trusted.jwks_url) if trusted.jwks_url else discovery.keys
    return Issuer(trusted.url, IssuerKeys(trusted.url, load, local=trusted.jwks_url.startswith("file:")), discovery)
