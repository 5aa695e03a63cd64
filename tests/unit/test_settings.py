"""Settings: what the environment and the flags say, and the one line that a wrong value gets."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from fhir_sched.settings import PREFIX, Auth, SearchHandling, Settings, SettingsError, load


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def test_the_defaults_are_those_that_are_published() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8080, 1)
    assert settings.auth is Auth.SMART
    assert settings.search_handling is SearchHandling.LENIENT
    assert settings.tenant_claim == "tenant_id"
    assert settings.hold_seconds == 300
    assert settings.demo_tenant == UUID("5eed0000-0000-4000-8000-000000000001")
    assert settings.publish_tenants == ()
    unset = ("database_url", "admin_url", "replica_url", "public_url", "issuer", "jwks_url", "audience")
    assert [getattr(settings, name) for name in unset] == [None] * len(unset)
    assert settings.data_dir.is_absolute()
    assert settings.data_dir.name == "fhir-sched"


@pytest.mark.parametrize(
    ("name", "given", "understood"),
    [
        ("port", "0", 0),
        ("workers", "4", 4),
        ("auth", "open", Auth.OPEN),
        ("search_handling", "strict", SearchHandling.STRICT),
        ("database_url", "postgresql://fhir_sched_app@db/clinic", "postgresql://fhir_sched_app@db/clinic"),
        ("public_url", "https://fhir.example/base/", "https://fhir.example/base"),
        ("jwks_url", "file:/etc/keys.json", "file:/etc/keys.json"),
        ("data_dir", "/srv/data", Path("/srv/data")),
        (
            "publish_tenants",
            "5eed0000-0000-4000-8000-000000000001, 5eed0000-0000-4000-8000-000000000002",
            (UUID("5eed0000-0000-4000-8000-000000000001"), UUID("5eed0000-0000-4000-8000-000000000002")),
        ),
        ("publish_tenants", "", ()),
        ("public_url", "", None),
    ],
)
def test_a_variable_is_understood(monkeypatch: pytest.MonkeyPatch, name: str, given: str, understood: object) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), given)
    assert getattr(load(), name) == understood


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("port", "eighty"),
        ("port", "65536"),
        ("workers", "0"),
        ("auth", "none"),
        ("search_handling", "maybe"),
        ("hold_seconds", "-1"),
        ("demo_tenant", "clinic"),
        ("publish_tenants", "clinic,other"),
        ("database_url", "mysql://db/clinic"),
        ("admin_url", "clinic"),
        ("replica_url", "http://db"),
        ("public_url", "fhir.example"),
        ("public_url", "https://fhir.example/?a=b"),
        ("issuer", "ftp://auth.example"),
        ("jwks_url", "keys.json"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), given)
    with pytest.raises(SettingsError) as refusal:
        load()
    assert str(refusal.value).startswith(f"{PREFIX}{name.upper()}: ")
    assert "\n" not in str(refusal.value)


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT", "x")
    monkeypatch.setenv(f"{PREFIX}WORKERS", "y")
    with pytest.raises(SettingsError, match=r"FHIR_SCHED_PORT.*FHIR_SCHED_WORKERS"):
        load()


def test_a_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", "postgres//app:secret@db/clinic")
    with pytest.raises(SettingsError) as refusal:
        load()
    assert "secret" not in str(refusal.value)


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT", "8081")
    assert load(port="8082", host=None).port == 8082


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_open_is_served_on_loopback(host: str) -> None:
    assert load(auth="open", host=host).auth is Auth.OPEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "clinic.example", "127.0.0.1.example"])
def test_open_is_refused_anywhere_else(host: str) -> None:
    with pytest.raises(SettingsError, match=r"FHIR_SCHED_AUTH=open .*FHIR_SCHED_HOST.*loopback"):
        load(auth="open", host=host)
    assert load(auth="smart", host=host).host == host


def test_a_worker_builds_the_same_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        auth="open",
        port="9000",
        database_url="postgresql://fhir_sched_app@/fhir_sched?host=%2Ftmp%2Fsocket",
        publish_tenants="5eed0000-0000-4000-8000-000000000001,5eed0000-0000-4000-8000-000000000002",
        data_dir="/srv/data",
        dev_key="on",
        issuer="https://auth.example",
        issuers="https://one.example=5eed0000-0000-4000-8000-000000000001",
        smart_configuration="/etc/smart.json",
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load() == settings
