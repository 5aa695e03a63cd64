"""`fhir-sched token`, and a server that trusts it: for trying out, on this machine alone."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from clinic import refusal
from db import Database
from fhir_sched.settings import SettingsError, load
from server import Server

PROGRAM = str(Path(sys.executable).with_name("fhir-sched"))
TENANT = UUID("5eed0000-0000-4000-8000-000000000001")


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *flags], check=False, capture_output=True, text=True, timeout=30)


def mint(data_dir: Path, *flags: str) -> str:
    done = run("token", "--data-dir", str(data_dir), *flags)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def trusting(database: Database, data_dir: Path) -> Iterator[Server]:
    """A server that trusts the development key in `data_dir`."""
    with Server(database.app_url, auth="smart", dev_key="on", data_dir=str(data_dir)) as running:
        yield running


def status(server: Server, path: str, token: str, tenant: UUID = TENANT) -> int:
    return server.client.get(f"{server.base(tenant)}/{path}", headers={"Authorization": f"Bearer {token}"}).status_code


def port(server: Server) -> str:
    return server.url.rpartition(":")[2]


def test_a_token_opens_what_its_scopes_say(trusting: Server, data_dir: Path) -> None:
    token = mint(data_dir, "--scope", "user/Slot.rs", "--port", port(trusting))
    assert status(trusting, "Slot", token) == 200
    assert status(trusting, "Appointment", token) == 403
    assert status(trusting, "Slot", token, UUID(int=5)) == 403
    refusal(trusting.client.get(f"{trusting.base(TENANT)}/Slot"), 401)


def test_a_token_of_a_patient_and_of_a_tenant(trusting: Server, data_dir: Path) -> None:
    other = UUID("5eed0000-0000-4000-8000-000000000002")
    flags = ("--tenant", str(other), "--patient", "123", "--expires-in", "60", "--subject", "ann", "--client", "app")
    token = mint(data_dir, "--scope", "patient/Appointment.rs", "--port", port(trusting), *flags)
    assert status(trusting, "Appointment", token, other) == 200
    assert status(trusting, "Appointment", token) == 403


def test_the_server_is_reached_by_each_of_its_own_names(trusting: Server, data_dir: Path) -> None:
    token = mint(data_dir, "--scope", "user/Slot.rs", "--port", port(trusting))
    path = f"{trusting.base(TENANT)}/Slot"
    headers = {"Authorization": f"Bearer {token}"}
    for host, expected in ((f"localhost:{port(trusting)}", 200), ("evil.example", 401), ("localhost:1", 401)):
        assert trusting.client.get(path, headers={**headers, "Host": host}).status_code == expected


def test_the_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    mint(tmp_path / "new", "--scope", "user/Slot.rs")
    key = tmp_path / "new" / "development-key.json"
    made = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [each.name for each in key.parent.iterdir()] == [key.name]
    mint(tmp_path / "new", "--scope", "user/Slot.rs")
    assert key.read_bytes() == made
    key.chmod(0o644)
    done = run("token", "--data-dir", str(key.parent), "--scope", "user/Slot.rs")
    assert (done.returncode, done.stdout) == (1, "")
    assert "chmod 600" in done.stderr
    key.chmod(0o600)
    key.write_text("{}")
    done = run("token", "--data-dir", str(key.parent), "--scope", "user/Slot.rs")
    assert "holds no key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_of_another_key_opens_nothing(trusting: Server, tmp_path: Path) -> None:
    token = mint(tmp_path, "--scope", "user/Slot.rs", "--port", port(trusting))
    assert status(trusting, "Slot", token) == 401


def test_a_server_without_the_setting_does_not_trust_it(database: Database, data_dir: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": []}))
    settings = {"issuer": "https://auth.example", "jwks_url": keys.as_uri(), "data_dir": str(data_dir)}
    with Server(database.app_url, auth="smart", **settings) as server:
        assert status(server, "Slot", mint(data_dir, "--scope", "user/Slot.rs", "--port", port(server))) == 401


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--scope", "everything"], "--scope"),
        (["--scope", "user/Slot.rs", "--tenant", "clinic"], "--tenant"),
        (["--scope", "patient/Slot.rs"], "--patient"),
        (["--scope", "patient/Slot.rs", "--patient", "a b"], "patient"),
        (["--scope", "user/Slot.rs", "--user", "dr-7"], "fhirUser"),
        (["--scope", "user/Slot.rs", "--expires-in", "0"], "--expires-in"),
        ([], "--scope"),
    ],
)
def test_a_wrong_flag_is_said_and_gives_no_token(tmp_path: Path, flags: list[str], why: str) -> None:
    done = run("token", "--data-dir", str(tmp_path), *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outside", [{"host": "0.0.0.0"}, {"public_url": "https://fhir.example"}])
def test_the_key_is_trusted_on_loopback_only(outside: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"FHIR_SCHED_DEV_KEY=on .*loopback"):
        load(auth="smart", dev_key="on", **outside)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ([], "FHIR_SCHED_ISSUER"),
        (["--jwks-url", "file:///nowhere/keys.json"], "FHIR_SCHED_ISSUER"),
        (["--issuer", "https://auth.example", "--jwks-url", "file:///nowhere/keys.json"], "https://auth.example"),
        (["--issuer", "https://auth.example", "--jwks-url", "file:/dev/null"], "https://auth.example"),
        (["--issuer", "https://auth.example", "--smart-configuration", "/nowhere.json"], "SMART_CONFIGURATION"),
        (["--issuer", "https://auth.example", "--host", "0.0.0.0"], "FHIR_SCHED_PUBLIC_URL"),
        (["--issuers", "https://auth.example"], "FHIR_SCHED_ISSUERS"),
        (["--issuers", "https://auth.example=clinic"], "a tenant is a UUID"),
        (["--issuers", "[5]"], "FHIR_SCHED_ISSUERS"),
    ],
)
def test_settings_that_can_not_work_are_one_line_and_nothing_starts(tmp_path: Path, flags: list[str], why: str) -> None:
    done = run("serve", "--auth", "smart", "--port", "0", "--data-dir", str(tmp_path), *flags)
    assert done.returncode == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
