"""Where a SMART app learns where to go: smart-configuration and the CapabilityStatement, on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from authority import Authority, Site
from clinic import as_resource, refusal
from db import Database
from server import Server

TENANT = UUID("5eed0000-0000-4000-8000-000000000001")
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


@pytest.fixture
def issuer(site: Site) -> Site:
    """An OpenID provider as many are: it knows nothing of SMART."""
    site.json(
        "/.well-known/openid-configuration",
        {
            "issuer": site.url,
            "authorization_endpoint": f"{site.url}/authorize",
            "token_endpoint": f"{site.url}/token",
            "jwks_uri": f"{site.url}/keys",
            "introspection_endpoint": "javascript:alert(1)",
            "code_challenge_methods_supported": ["plain", "S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt", "none"],
            "userinfo_endpoint": f"{site.url}/userinfo",
        },
    )
    site.json("/keys", Authority(site.url).key_set())
    return site


@pytest.fixture
def served(database: Database, issuer: Site) -> Iterator[Server]:
    """A server that trusts the issuer."""
    with Server(database.app_url, auth="smart", issuer=issuer.url) as running:
        yield running


def told(server: Server, **headers: str) -> httpx.Response:
    return server.client.get(f"{server.base(TENANT)}/.well-known/smart-configuration", headers=headers)


def metadata(server: Server) -> dict[str, Any]:
    answer = server.client.get(f"{server.base(TENANT)}/metadata")
    assert answer.status_code == 200
    security: dict[str, Any] = as_resource(answer)["rest"][0]["security"]
    return security


def test_an_app_is_told_where_to_go_without_a_token(served: Server, issuer: Site) -> None:
    answer = told(served, Origin="https://app.example")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    document = answer.json()
    assert document["authorization_endpoint"] == f"{issuer.url}/authorize"
    assert document["token_endpoint"] == f"{issuer.url}/token"
    assert (document["issuer"], document["jwks_uri"]) == (issuer.url, f"{issuer.url}/keys")
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["grant_types_supported"] == ["authorization_code", "client_credentials"]
    assert {"permission-v1", "permission-v2", "client-public", "client-confidential-asymmetric"} <= set(
        document["capabilities"]
    )
    assert "introspection_endpoint" not in document
    assert "userinfo_endpoint" not in document


@pytest.mark.parametrize("accept", ["text/html", "application/fhir+xml", "application/json", "*/*", "image/png"])
def test_it_is_json_whatever_the_client_accepts(served: Server, accept: str) -> None:
    answer = told(served, Accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


def test_the_issuers_own_smart_configuration_counts_most(served: Server, issuer: Site) -> None:
    issuer.json(
        "/.well-known/smart-configuration",
        {"capabilities": ["launch-ehr"], "token_endpoint": f"{issuer.url}/smart/token", "scopes_supported": ["openid"]},
    )
    document = told(served).json()
    assert document["capabilities"] == ["launch-ehr"]
    assert document["scopes_supported"] == ["openid"]
    assert document["token_endpoint"] == f"{issuer.url}/smart/token"
    assert document["authorization_endpoint"] == f"{issuer.url}/authorize"


def test_metadata_says_it_in_the_older_way_too(served: Server, issuer: Site) -> None:
    security = metadata(served)
    (service,) = security["service"]
    assert service["coding"][0]["code"] == "SMART-on-FHIR"
    (extension,) = security["extension"]
    assert extension["url"] == OAUTH_URIS
    assert {each["url"]: each["valueUri"] for each in extension["extension"]} == {
        "authorize": f"{issuer.url}/authorize",
        "token": f"{issuer.url}/token",
    }


def test_a_file_of_the_operators_has_the_last_word(database: Database, issuer: Site, tmp_path: Path) -> None:
    given = tmp_path / "smart.json"
    given.write_text(json.dumps({"token_endpoint": "https://gateway.example/token", "capabilities": ["launch-ehr"]}))
    with Server(database.app_url, auth="smart", issuer=issuer.url, smart_configuration=str(given)) as server:
        document = told(server).json()
        assert document["token_endpoint"] == "https://gateway.example/token"
        assert document["capabilities"] == ["launch-ehr"]
        assert document["authorization_endpoint"] == f"{issuer.url}/authorize"


def test_while_the_issuer_is_down_metadata_is_served_and_the_rest_is_503(database: Database, site: Site) -> None:
    with Server(database.app_url, auth="smart", issuer=site.url) as server:
        assert "extension" not in metadata(server)
        refusal(told(server), 503)
        assert told(server).headers["retry-after"] == "5"
        answer = server.client.get(
            f"{server.base(TENANT)}/Slot",
            headers={"Authorization": f"Bearer {Authority(site.url).token(TENANT, server.base(TENANT))}"},
        )
        refusal(answer, 503)


def test_other_methods_are_405_and_options_is_answered(served: Server) -> None:
    path = f"{served.base(TENANT)}/.well-known/smart-configuration"
    refusal(served.client.post(path), 405)
    assert served.client.options(path).status_code == 204
    assert served.client.head(path).status_code == 200


def test_an_open_server_has_none(server: Server) -> None:
    refusal(told(server), 404)
    security = metadata(server)
    assert security["description"].startswith("Open:")
    assert "service" not in security
