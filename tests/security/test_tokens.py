"""Which tokens open the door: one table of what is wrong with the others. No test here is of a happy token alone."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from authority import ISSUER, Authority, encoded
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.security.caller import OPEN, Caller
from fhir_sched.security.scopes import Scope
from fhir_sched.security.tokens import MAX_REMEMBERED, MAX_TOKEN, Authenticator
from fhir_sched.settings import load

TENANT = "5eed0000-0000-4000-8000-000000000001"
OTHER = "5eed0000-0000-4000-8000-000000000002"
BASE = f"https://fhir.example/fhir/{TENANT}"
SHA256, SHA384 = (encoded(json.dumps({"alg": name, "kid": "first"}).encode()) for name in ("RS256", "RS384"))


def ask(authenticator: Authenticator, token: str, tenant: str = TENANT, base: str = BASE) -> Caller:
    return asyncio.run(authenticator.authenticate(f"Bearer {token}".encode(), tenant, base))


def refused(authenticator: Authenticator, token: str, tenant: str = TENANT, base: str = BASE) -> FhirError:
    with pytest.raises(FhirError) as error:
        ask(authenticator, token, tenant, base)
    return error.value


# who a good token names


def test_user_scopes_without_a_user_are_staffs_unless_a_user_is_demanded(authority: Authority, tmp_path: Path) -> None:
    trusted: dict[str, Any] = {"auth": "smart", "issuer": authority.issuer, "jwks_url": authority.write(tmp_path)}
    scope = "user/Appointment.cruds patient/Slot.rs"
    nameless = authority.token(TENANT, BASE, scope=scope, patient="123")
    named = authority.token(TENANT, BASE, scope=scope, patient="123", fhirUser="Practitioner/7")
    both = (Scope("user", "Appointment", "cruds"), Scope("patient", "Slot", "rs"))

    lenient = Authenticator(load(**trusted))
    assert ask(lenient, nameless).scopes == both
    assert ask(lenient, nameless).origin == "staff"

    demanding = Authenticator(load(**trusted, require_fhir_user=True))
    assert ask(demanding, named).scopes == both
    assert ask(demanding, nameless).scopes == both[1:]
    assert ask(demanding, nameless).origin == "portal"


def test_a_good_token_names_its_caller(authenticator: Authenticator, authority: Authority) -> None:
    subject = str(uuid.uuid4())
    caller = ask(
        authenticator,
        authority.token(
            TENANT, BASE, sub=subject, scope="openid patient/Appointment.rs", patient="123",
            fhirUser="https://ehr.example/r4/Practitioner/dr-7", client_id="portal",
        ),
    )  # fmt: skip
    assert caller == Caller(
        subject, (Scope("patient", "Appointment", "rs"),), "Patient/123", "Practitioner/dr-7", "portal"
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"sub": "AAAAAAAA-0000-4000-8000-000000000000"}, {"subject": "aaaaaaaa-0000-4000-8000-000000000000"}),
        ({"patient": "Patient/123"}, {"patient": "Patient/123"}),
        ({"patient": "https://ehr.example/r4/Patient/9"}, {"patient": "Patient/9"}),
        (
            {"patient": "AAAAAAAA-0000-4000-8000-000000000000"},
            {"patient": "Patient/aaaaaaaa-0000-4000-8000-000000000000"},
        ),
        ({"scope": ["user/Slot.rs", "openid"]}, {"scopes": (Scope("user", "Slot", "rs"),)}),
        ({"scope": "user/Slot.read"}, {"scopes": (Scope("user", "Slot", "rs"),)}),
        ({"scope": None, "scp": ["user/Slot.rs"]}, {"scopes": (Scope("user", "Slot", "rs"),)}),
        ({"client_id": None, "azp": "portal"}, {"client": "portal"}),
        ({"aud": ["https://other.example", BASE]}, {}),
        ({"aud": f"{BASE}/"}, {}),
        ({"nbf": 1, "iat": None, "exp": time.time() + 86_400.5}, {}),
        ({"tenant_id": TENANT.upper()}, {}),
        ({"iss": f"{ISSUER}/"}, {}),
    ],
)
def test_a_claim_is_read(
    authenticator: Authenticator, authority: Authority, changed: dict[str, Any], expected: dict[str, Any]
) -> None:
    caller = ask(authenticator, authority.token(TENANT, BASE, **changed))
    assert {name: getattr(caller, name) for name in expected} == expected


def test_a_subject_that_is_no_uuid_gets_a_stable_one_of_its_issuer(
    authenticator: Authenticator, authority: Authority
) -> None:
    first, again = (ask(authenticator, authority.token(TENANT, BASE, sub="ann", jti=jti)) for jti in ("1", "2"))
    other = ask(authenticator, authority.token(TENANT, BASE, sub="bob"))
    assert first.subject == again.subject == str(uuid.UUID(first.subject)) != other.subject
    service = ask(authenticator, authority.token(TENANT, BASE, sub=None, client_id="ann"))
    assert service.subject == first.subject


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt", "AT+JWT", None])
def test_the_types_of_an_access_token_are_taken(
    authenticator: Authenticator, authority: Authority, typ: str | None
) -> None:
    header = {"alg": "RS256", "kid": "first"} | ({"typ": typ} if typ else {})
    assert ask(authenticator, authority.signed(authority.claims(TENANT, BASE), header)).client == "app"


KEYS: list[tuple[str, Callable[[], Any]]] = [
    *((name, lambda: RSAKey.generate_key(2048)) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("ES256", lambda: ECKey.generate_key("P-256")),
    ("ES384", lambda: ECKey.generate_key("P-384")),
    ("ES512", lambda: ECKey.generate_key("P-521")),
    ("EdDSA", lambda: OKPKey.generate_key("Ed25519")),
    ("Ed25519", lambda: OKPKey.generate_key("Ed25519")),
]


@pytest.mark.parametrize(("algorithm", "make"), KEYS, ids=[name for name, _ in KEYS])
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_each_allowed_algorithm_is_verified(tmp_path: Path, algorithm: str, make: Callable[[], Any]) -> None:
    authority = Authority()
    authority.add("k", make())
    authenticator = Authenticator(load(auth="smart", issuer=ISSUER, jwks_url=authority.write(tmp_path)))
    token = authority.token(TENANT, BASE, header={"alg": algorithm, "kid": "k"})
    assert ask(authenticator, token).client == "app"
    head, claims, signature = token.split(".")
    changed = signature[:20] + ("A" if signature[20] != "A" else "B") + signature[21:]
    assert refused(authenticator, f"{head}.{claims}.{changed}").status == 401


# what is wrong with the others

NOW = int(time.time())
WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": NOW - 40, "iat": NOW - 400},
    "no exp": {"exp": None},
    "exp beyond any calendar": {"exp": 1e308},
    "exp of many digits": {"exp": 10**40},
    "exp true": {"exp": True},
    "exp in quotes": {"exp": str(NOW + 300)},
    "exp in a list": {"exp": [NOW + 300]},
    "exp nothing": {"exp": 0},
    "exp negative": {"exp": -5},
    "issued in the future": {"iat": NOW + 3600, "exp": NOW + 7200},
    "iat in quotes": {"iat": str(NOW)},
    "iat false": {"iat": False},
    "not valid yet": {"nbf": NOW + 3600},
    "nbf beyond any calendar": {"nbf": 1e300},
    "no issuer": {"iss": None},
    "a foreign issuer": {"iss": "https://evil.example"},
    "an issuer below ours": {"iss": f"{ISSUER}/sub"},
    "a longer issuer": {"iss": f"{ISSUER}.evil.example"},
    "issuer in a list": {"iss": [ISSUER]},
    "no audience": {"aud": None},
    "another audience": {"aud": "https://other.example"},
    "the audience of another tenant": {"aud": BASE.replace(TENANT, OTHER)},
    "an audience below ours": {"aud": f"{BASE}/Slot"},
    "the client as audience": {"aud": "app"},
    "an empty audience": {"aud": ""},
    "a slash as audience": {"aud": "/"},
    "no audience in the list": {"aud": []},
    "audience twice": {"aud": [BASE, BASE]},
    "audience of a number": {"aud": [BASE, 1]},
    "audience in an object": {"aud": {BASE: True}},
    "an id token, by nonce": {"nonce": "n-0S6_WzA2Mj"},
    "an id token, by at_hash": {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "an id token, by c_hash": {"c_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    "an id token, by typ": {"typ": "ID"},
    "a refresh token": {"typ": "Refresh"},
    "an id token, by token_use": {"token_use": "id"},
    "a logout token": {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    "no scope": {"scope": None},
    "scope of a number": {"scope": 1},
    "scope with a number": {"scope": ["user/*.cruds", 1]},
    "bound to a key": {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
    "no subject": {"sub": None, "client_id": None},
    "subject of a number": {"sub": 1},
    "a subject without end": {"sub": "x" * 3000},
    "patient of a number": {"patient": 5},
    "patient in a list": {"patient": ["1", "2"]},
    "patient with a blank": {"patient": "1 2"},
    "patient that is another type": {"patient": "Practitioner/1"},
    "patient with a query": {"patient": "Patient/1?x=y"},
    "patient that is two": {"patient": "1,2"},
    "user that is no reference": {"fhirUser": "dr-7"},
    "user of a strange type": {"fhirUser": "Group/1"},
    "user of a number": {"fhirUser": 7},
}


@pytest.mark.parametrize("changed", WRONG_CLAIMS.values(), ids=WRONG_CLAIMS.keys())
def test_a_token_that_says_something_wrong_is_401(
    authenticator: Authenticator, authority: Authority, changed: dict[str, Any]
) -> None:
    error = refused(authenticator, authority.token(TENANT, BASE, **changed))
    assert (error.status, error.issues[0].kind) == (401, Kind.LOGIN)
    ((name, challenge),) = error.headers
    assert name == "WWW-Authenticate"
    assert challenge.startswith(f'Bearer realm="{BASE}", error="invalid_token", error_description="')
    assert challenge.isascii()


WRONG_HEADERS: dict[str, dict[str, Any]] = {
    "an unknown key": {"kid": "second"},
    "a path as kid": {"kid": "../../etc/passwd"},
    "a URL as kid": {"kid": "https://evil.example/keys.json"},
    "SQL as kid": {"kid": "first' or '1'='1"},
    "a number as kid": {"kid": 1},
    "a list as kid": {"kid": ["first"]},
    "a kid without end": {"kid": "f" * 600},
    "crit": {"crit": ["exp"]},
    "crit of nothing": {"crit": []},
    "b64": {"b64": False},
    "an id token": {"typ": "id_token+jwt"},
    "a logout token": {"typ": "logout+jwt"},
    "a proof of possession": {"typ": "dpop+jwt"},
    "typ of a number": {"typ": 1},
    "alg none": {"alg": "none"},
    "alg None": {"alg": "None"},
    "alg NONE": {"alg": "NONE"},
    "alg of nothing": {"alg": ""},
    "alg in a list": {"alg": ["RS256"]},
    "alg in small letters": {"alg": "rs256"},
    "no alg": {"alg": None},
    "an algorithm of another kind of key": {"alg": "ES256"},
    "a secret's algorithm": {"alg": "HS256"},
    "a curve that is not accepted": {"alg": "ES256K"},
}


def under(header: dict[str, Any], authority: Authority) -> str:
    """A good token whose header was changed before it was signed with the true key."""
    told = {"alg": "RS256", "kid": "first", **header}
    told = {name: value for name, value in told.items() if value is not None}
    signed = f"{encoded(json.dumps(told).encode())}.{encoded(json.dumps(authority.claims(TENANT, BASE)).encode())}"
    signature = JWSRegistry.algorithms["RS256"].sign(signed.encode(), authority.keys["first"])
    return f"{signed}.{encoded(signature)}"


def test_a_token_made_by_hand_is_good(authenticator: Authenticator, authority: Authority) -> None:
    assert ask(authenticator, under({}, authority)).client == "app"
    harmless = {"jku": "https://evil.example/keys.json", "x5u": "https://evil.example/cert", "x5t": "abc"}
    assert ask(authenticator, under(harmless, authority)).client == "app"


@pytest.mark.parametrize("header", WRONG_HEADERS.values(), ids=WRONG_HEADERS.keys())
def test_a_header_that_says_something_wrong_is_401(
    authenticator: Authenticator, authority: Authority, header: dict[str, Any]
) -> None:
    assert refused(authenticator, under(header, authority)).status == 401


def by_hand(header: str, claims: str, signature: bytes = b"") -> str:
    return f"{encoded(header.encode())}.{encoded(claims.encode())}.{encoded(signature)}"


def forged(authority: Authority) -> dict[str, str]:
    """Tokens that nobody with the key has made, and texts that are none."""
    good = authority.token(TENANT, BASE)
    head, body, signature = good.split(".")
    claims = json.dumps(authority.claims(TENANT, BASE))
    public = authority.keys["first"].as_pem(private=False)  # type: ignore[union-attr]
    hs_head = encoded(b'{"alg":"HS256","kid":"first"}')
    with_public_key = encoded(hmac.new(public, f"{hs_head}.{body}".encode(), hashlib.sha256).digest())
    mine = RSAKey.generate_key(2048)
    thief = Authority()
    thief.keys["first"] = mine
    jwk = {"alg": "RS256", "kid": "first", "jwk": mine.as_dict(private=False)}
    twice = claims.replace("{", f'{{"tenant_id": "{OTHER}", ', 1)
    return {
        "unsigned": by_hand('{"alg":"none"}', claims),
        "an empty signature": f"{head}.{body}.",
        "no signature": f"{head}.{body}",
        "signed with the public key as a secret": f"{hs_head}.{body}.{with_public_key}",
        "signed with another key": thief.token(TENANT, BASE),
        "signed with the key that it brings along": thief.signed(authority.claims(TENANT, BASE), jwk),
        "other claims under a good signature": f"{head}.{encoded(claims.encode())}x.{signature}",
        "another header under a good signature": f"{SHA384}.{body}.{signature}",
        "a claim twice": under_claims(authority, twice),
        "an audience twice": under_claims(authority, claims.replace("{", '{"aud": "x", ', 1)),
        "NaN": under_claims(authority, claims.replace('"exp"', '"x": NaN, "exp"')),
        "Infinity": under_claims(authority, claims.replace('"exp"', '"x": Infinity, "exp"')),
        "deep": under_claims(authority, claims.replace("{", '{"x": ' + "[" * 500 + "]" * 500 + ", ", 1)),
        "a list": under_claims(authority, "[1]"),
        "no JSON": under_claims(authority, "hello"),
        "no UTF-8": f"{head}.{encoded(bytes([255, 254]))}.{signature}",
        "a header twice": by_hand('{"alg":"RS256","alg":"none","kid":"first"}', claims, b"x"),
        "five parts": f"{good}.a.b",
        "dots": "..",
        "one word": "hello",
        "nothing": "",
        "a blank inside": good.replace(".", " ", 1),
        "too long": f"{head}.{body}.{signature}{'A' * MAX_TOKEN}",
        "very long": "A" * 60_000,
        "padding": f"{head}=.{body}.{signature}",
        "letters of another alphabet": f"{head}.{body}.ÄÖÜ",
    }


def under_claims(authority: Authority, claims: str) -> str:
    """These very bytes as claims, signed with the true key."""
    signed = f"{SHA256}.{encoded(claims.encode())}"
    signature = JWSRegistry.algorithms["RS256"].sign(signed.encode(), authority.keys["first"])
    return f"{signed}.{encoded(signature)}"


def test_forged_and_broken_tokens_are_401_and_never_anything_else(
    authenticator: Authenticator, authority: Authority
) -> None:
    assert ask(authenticator, under_claims(authority, json.dumps(authority.claims(TENANT, BASE)))).client == "app"
    for what, token in forged(authority).items():
        assert refused(authenticator, token).status == 401, what
        assert token == "" or token[:40] not in str(refused(authenticator, token)), what


def test_a_short_leeway_bridges_clocks(authenticator: Authenticator, authority: Authority) -> None:
    now = int(time.time())
    assert ask(authenticator, authority.token(TENANT, BASE, exp=now - 10, iat=now - 300)).client == "app"
    assert ask(authenticator, authority.token(TENANT, BASE, iat=now + 10, nbf=now + 10)).client == "app"


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Bearer", "bearertoken", "Token x", "DPoP x"])
def test_without_a_token_no_error_is_named(authenticator: Authenticator, header: str) -> None:
    with pytest.raises(FhirError) as error:
        asyncio.run(authenticator.authenticate(header.encode(), TENANT, BASE))
    (challenge,) = (value for name, value in error.value.headers if name == "WWW-Authenticate")
    expected = f'Bearer realm="{BASE}"'
    assert challenge == expected or (header == "Bearer" and challenge.startswith(expected))
    assert error.value.status == 401


def test_the_scheme_is_read_in_any_letters(authenticator: Authenticator, authority: Authority) -> None:
    token = authority.token(TENANT, BASE).encode()
    assert asyncio.run(authenticator.authenticate(b"bEaReR  " + token, TENANT, BASE)).client == "app"


# tenants


@pytest.mark.parametrize("claim", [None, OTHER, "", 1, [TENANT], {"id": TENANT}, TENANT[:-1], f"{TENANT} {OTHER}"])
def test_a_token_of_another_tenant_is_403_without_a_word_more(
    authenticator: Authenticator, authority: Authority, claim: object
) -> None:
    error = refused(authenticator, authority.token(TENANT, BASE, tenant_id=claim))
    assert error.status == 403
    assert [issue.diagnostics for issue in error.issues] == ["the token does not reach so far"]


def test_a_remembered_token_opens_no_other_tenant_and_no_other_server(
    authenticator: Authenticator, authority: Authority
) -> None:
    both = [BASE, BASE.replace(TENANT, OTHER)]
    token = authority.token(TENANT, both)
    assert ask(authenticator, token).client == "app"
    assert refused(authenticator, token, OTHER, both[1]).status == 403
    assert refused(authenticator, token, TENANT, "https://other.example/fhir").status == 401
    assert refused(authenticator, token, TENANT, "").status == 401


def test_issuers_speak_for_the_tenants_that_they_are_named_for(tmp_path: Path) -> None:
    general, own = Authority("https://general.example"), Authority("https://own.example")
    (tmp_path / "own").mkdir()
    (tmp_path / "general").mkdir()
    issuers = json.dumps([{"issuer": own.issuer, "tenants": [OTHER], "jwks_url": own.write(tmp_path / "own")}])
    settings = load(
        auth="smart", issuer=general.issuer, jwks_url=general.write(tmp_path / "general"), issuers=issuers,
        audience="fhir",
    )  # fmt: skip
    authenticator = Authenticator(settings)
    assert ask(authenticator, general.token(TENANT, "fhir")).client == "app"
    assert ask(authenticator, own.token(OTHER, "fhir"), OTHER).client == "app"
    assert refused(authenticator, own.token(TENANT, "fhir")).status == 403
    assert refused(authenticator, general.token(OTHER, "fhir"), OTHER).status == 403
    stolen = own.claims(OTHER, "fhir") | {"iss": general.issuer}
    assert refused(authenticator, own.signed(stolen, {"alg": "RS256", "kid": "first"}), OTHER).status == 401


def test_an_audience_that_is_set_replaces_the_base(authority: Authority, tmp_path: Path) -> None:
    url = authority.write(tmp_path)
    authenticator = Authenticator(load(auth="smart", issuer=ISSUER, jwks_url=url, audience="https://api.example/"))
    assert ask(authenticator, authority.token(TENANT, "https://api.example")).client == "app"
    assert refused(authenticator, authority.token(TENANT, BASE)).status == 401


def test_another_claim_can_name_the_tenant(authority: Authority, tmp_path: Path) -> None:
    url = authority.write(tmp_path)
    authenticator = Authenticator(load(auth="smart", issuer=ISSUER, jwks_url=url, tenant_claim="org"))
    assert ask(authenticator, authority.token(OTHER, BASE, org=TENANT)).client == "app"
    assert refused(authenticator, authority.token(TENANT, BASE)).status == 403


# memory


def test_a_token_is_remembered_until_it_expires(authority: Authority, tmp_path: Path) -> None:
    clock = [time.time()]
    settings = load(auth="smart", issuer=ISSUER, jwks_url=authority.write(tmp_path))
    authenticator = Authenticator(settings, now=lambda: clock[0])
    token = authority.token(TENANT, BASE, exp=int(clock[0]) + 60)
    first = ask(authenticator, token)
    assert ask(authenticator, token) is first
    clock[0] += 100
    assert refused(authenticator, token).status == 401
    assert not authenticator._remembered


def test_the_memory_is_bounded_and_forgets_what_was_used_least(
    authenticator: Authenticator, authority: Authority
) -> None:
    token = authority.token(TENANT, BASE)
    first = ask(authenticator, token)
    known = next(iter(authenticator._remembered.values()))
    for number in range(MAX_REMEMBERED - 1):
        authenticator._remembered[str(number).encode()] = known
    assert ask(authenticator, token) is first
    ask(authenticator, authority.token(TENANT, BASE, jti="another"))
    assert len(authenticator._remembered) == MAX_REMEMBERED
    assert b"0" not in authenticator._remembered
    assert ask(authenticator, token) is first


def test_a_remembered_token_costs_microseconds(authenticator: Authenticator, authority: Authority) -> None:
    token = f"Bearer {authority.token(TENANT, BASE)}".encode()

    async def many() -> float:
        await authenticator.authenticate(token, TENANT, BASE)
        begun = time.perf_counter()
        for _ in range(2000):
            await authenticator.authenticate(token, TENANT, BASE)
        return (time.perf_counter() - begun) / 2000

    assert min(asyncio.run(many()) for _ in range(3)) < 50e-6


def test_nothing_is_asked_without_tokens() -> None:
    authenticator = Authenticator(load(auth="open"))
    assert asyncio.run(authenticator.authenticate(b"", TENANT, BASE)) is OPEN
