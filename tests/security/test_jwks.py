"""The issuer's keys: rotation, outage, one fetch at a time, and an issuer that answers what it should not."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from authority import Authority, Site, encoded
from fhir_sched.outcome import FhirError
from fhir_sched.security.caller import Caller
from fhir_sched.security.fetching import MAX_BYTES, Fetcher, FetchError
from fhir_sched.security.introspection import KEPT_S
from fhir_sched.security.jwks import FRESH_S, UNKNOWN_KEY_PAUSE_S, IssuerKeys
from fhir_sched.security.tokens import Authenticator
from fhir_sched.settings import load

TENANT = "5eed0000-0000-4000-8000-000000000001"
BASE = f"https://fhir.example/fhir/{TENANT}"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def keys_of(site: Site, clock: Clock) -> AsyncIterator[IssuerKeys]:
    """The keys at /keys of the site."""
    fetcher = Fetcher()
    keys = IssuerKeys(site.url, partial(fetcher.get, f"{site.url}/keys"), clock=clock)
    yield keys
    await settled()
    await keys.close()
    await fetcher.close()


def answered(door: Authenticator, token: str) -> Caller:
    """Whom one token names to an authenticator that is closed afterwards."""

    async def run() -> Caller:
        try:
            return await door.authenticate(f"Bearer {token}".encode(), TENANT, BASE)
        finally:
            await door.close()

    return asyncio.run(run())


async def kids(keys: IssuerKeys, kid: str | None, algorithm: str = "RS256") -> list[str | None]:
    return [key.kid for key in await keys.fitting(kid, algorithm)]


async def settled() -> None:
    """Let what runs beside us come to its end."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


def test_a_new_key_is_found_at_its_first_token_and_then_asked_for_at_most_every_30_s(
    site: Site, authority: Authority
) -> None:
    clock = Clock()
    rotating = Authority()
    site.json("/keys", rotating.key_set())

    async def run() -> None:
        async with keys_of(site, clock) as keys:
            assert await kids(keys, "first") == ["first"]
            rotating.add("second")
            site.json("/keys", rotating.key_set())
            assert await kids(keys, "second") == []
            assert site.asked["/keys"] == 1
            clock.now += UNKNOWN_KEY_PAUSE_S
            assert await kids(keys, "second") == ["second"]
            for number in range(50):
                assert await kids(keys, f"unknown {number}") == []
            assert site.asked["/keys"] == 2

    asyncio.run(run())


def test_many_requests_at_once_make_one_fetch(site: Site, authority: Authority) -> None:
    body = json.dumps(authority.key_set()).encode()

    def slowly(_: bytes) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.1)
        return 200, {}, body

    site.serve["/keys"] = slowly

    async def run() -> None:
        async with keys_of(site, Clock()) as keys:
            found = await asyncio.gather(*(kids(keys, "first") for _ in range(100)))
            assert found == [["first"]] * 100

    asyncio.run(run())
    assert site.asked["/keys"] == 1


def test_whoever_gives_up_waiting_leaves_the_fetch_to_the_others(site: Site, authority: Authority) -> None:
    body = json.dumps(authority.key_set()).encode()
    go_on = threading.Event()

    def when_told(_: bytes) -> tuple[int, dict[str, str], bytes]:
        go_on.wait(5)
        return 200, {}, body

    site.serve["/keys"] = when_told

    async def run() -> None:
        async with keys_of(site, Clock()) as keys:
            impatient = asyncio.create_task(kids(keys, "first"))
            patient = asyncio.create_task(kids(keys, "first"))
            await asyncio.sleep(0.05)
            impatient.cancel()
            await asyncio.gather(impatient, return_exceptions=True)
            go_on.set()
            assert await patient == ["first"]

    asyncio.run(run())
    assert site.asked["/keys"] == 1


def test_old_keys_serve_while_the_issuer_is_down(
    site: Site, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    site.json("/keys", authority.key_set())

    async def run() -> None:
        async with keys_of(site, clock) as keys:
            assert await kids(keys, "first") == ["first"]
            site.json("/keys", {}, status=503)
            for _ in range(5):
                clock.now += FRESH_S
                assert await kids(keys, "first") == ["first"]
                await settled()
            assert site.asked["/keys"] == 6

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "status 503" in caplog.text


def test_keys_that_are_not_fresh_are_renewed_without_anybody_waiting(site: Site) -> None:
    clock = Clock()
    rotating = Authority()
    site.json("/keys", rotating.key_set())

    async def run() -> None:
        async with keys_of(site, clock) as keys:
            (old,) = await keys.fitting("first", "RS256")
            rotating.add("first")
            site.json("/keys", rotating.key_set())
            clock.now += FRESH_S
            assert await keys.fitting("first", "RS256") == [old]
            await settled()
            (new,) = await keys.fitting("first", "RS256")
            assert old.retired
            assert not new.retired

    asyncio.run(run())


def test_a_key_that_stays_keeps_its_tokens(site: Site, authority: Authority) -> None:
    clock = Clock()
    site.json("/keys", authority.key_set())

    async def run() -> None:
        async with keys_of(site, clock) as keys:
            (before,) = await keys.fitting("first", "RS256")
            clock.now += FRESH_S
            await keys.fitting("first", "RS256")
            await settled()
            assert await keys.fitting("first", "RS256") == [before]
            assert not before.retired

    asyncio.run(run())


def test_while_there_are_no_keys_the_issuer_is_not_asked_at_each_request(site: Site) -> None:
    clock = Clock()

    async def run() -> None:
        async with keys_of(site, clock) as keys:
            for _ in range(20):
                with pytest.raises(FetchError, match="status 404"):
                    await keys.fitting("first", "RS256")
            assert site.asked["/keys"] == 1
            clock.now += 5
            with pytest.raises(FetchError):
                await keys.fitting("first", "RS256")
            assert site.asked["/keys"] == 2

    asyncio.run(run())


BAD_ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "a redirect": (302, {"Location": "/elsewhere"}, b""),
    "a permanent redirect": (308, {"Location": "/elsewhere"}, b""),
    "oversized": (200, {}, b'{"keys": [], "x": "' + b"A" * MAX_BYTES + b'"}'),
    "no JSON": (200, {}, b"<html>"),
    "no object": (200, {}, b"[]"),
    "no key set": (200, {}, b'{"jwks": []}'),
    "keys twice": (200, {}, b'{"keys": [], "keys": []}'),
    "deep": (200, {}, b'{"keys": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "compressed": (200, {"Content-Encoding": "gzip"}, b"{}"),
    "nothing": (204, {}, b""),
    "an error": (500, {}, b"{}"),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_an_answer_that_is_no_key_set_is_no_answer(
    site: Site, authority: Authority, answer: tuple[int, dict[str, str], bytes]
) -> None:
    site.serve["/keys"] = lambda _: answer
    site.json("/elsewhere", authority.key_set())

    async def run() -> None:
        async with keys_of(site, Clock()) as keys:
            with pytest.raises(FetchError):
                await keys.fitting("first", "RS256")

    asyncio.run(run())
    assert site.asked == {"/keys": 1}


def test_an_issuer_that_does_not_answer_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_sched.security.fetching.TIMEOUT_S", 0.1)
    done = threading.Event()
    site.serve["/keys"] = lambda _: (200, {}, b"{}") if done.wait(2) else (500, {}, b"")

    async def run() -> None:
        async with keys_of(site, Clock()) as keys:
            with pytest.raises(FetchError):
                await keys.fitting("first", "RS256")

    begun = time.monotonic()
    asyncio.run(run())
    done.set()
    assert time.monotonic() - begun < 1.5


# which keys count


def jwk(key: Any, **changed: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "k", **changed}


RSA, EC = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
NOT_OURS: dict[str, tuple[Any, str]] = {
    "a secret": ({**OctKey.generate_key(256).as_dict(private=True), "kid": "k"}, "HS256"),
    "a short RSA key": ({"kty": "RSA", "n": encoded(b"\xc1" * 128), "e": "AQAB", "kid": "k"}, "RS256"),
    "for encryption": (jwk(RSA, use="enc"), "RS256"),
    "for wrapping": (jwk(RSA, key_ops=["wrapKey"]), "RS256"),
    "for another algorithm": (jwk(RSA, alg="RS512"), "RS256"),
    "for encryption by its algorithm": (jwk(RSA, alg="RSA-OAEP"), "RS256"),
    "another curve": (jwk(ECKey.generate_key("secp256k1")), "ES256K"),
    "a curve for another algorithm": (jwk(EC), "ES384"),
    "an unknown kind": ({"kty": "LATTICE", "kid": "k"}, "RS256"),
    "no kind": ({"kid": "k"}, "RS256"),
    "no modulus": ({"kty": "RSA", "e": "AQAB", "kid": "k"}, "RS256"),
    "a modulus of a number": ({"kty": "RSA", "n": 5, "e": "AQAB", "kid": "k"}, "RS256"),
    "no point of the curve": ({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "k"}, "ES256"),
    "a text": ("k", "RS256"),
    "kid of a number": (jwk(RSA, kid=1), "RS256"),
}


@pytest.mark.parametrize(("given", "algorithm"), NOT_OURS.values(), ids=NOT_OURS.keys())
@pytest.mark.filterwarnings("ignore:.*:joserfc.errors.SecurityWarning")
def test_a_key_that_can_not_have_signed_is_left_out_and_the_others_count(given: Any, algorithm: str) -> None:
    async def load_() -> dict[str, Any]:
        return {"keys": [given, jwk(ECKey.generate_key("P-521"), kid="other")]}

    async def run() -> None:
        keys = IssuerKeys("x", load_, clock=Clock())
        assert await kids(keys, "k", algorithm) == []
        assert await kids(keys, "other", "ES512") == ["other"]

    asyncio.run(run())


def test_a_token_without_kid_is_for_an_issuer_with_one_key_of_the_kind() -> None:
    def load_(*keys: Any) -> Callable[[], Awaitable[dict[str, Any]]]:
        async def loaded() -> dict[str, Any]:
            return {"keys": list(keys)}

        return loaded

    async def run() -> None:
        one = IssuerKeys("x", load_(jwk(RSA, kid="a"), jwk(EC, kid="b")), clock=Clock())
        assert (await kids(one, None), await kids(one, None, "ES256")) == (["a"], ["b"])
        two = IssuerKeys("x", load_(jwk(RSA, kid="a"), jwk(RSAKey.generate_key(2048), kid="b")), clock=Clock())
        assert await kids(two, None) == []

    asyncio.run(run())


def test_a_private_key_in_the_set_is_used_as_the_public_one(tmp_path: Path) -> None:
    authority = Authority()
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**authority.keys["first"].as_dict(private=True), "kid": "first"}]}))
    settings = load(auth="smart", issuer=authority.issuer, jwks_url=path.as_uri())
    token = authority.token(TENANT, BASE)
    assert answered(Authenticator(settings), token).client == "app"


# the whole way


def authenticator(site: Site, **settings: Any) -> Authenticator:
    return Authenticator(load(auth="smart", issuer=site.url, **settings))


def discovered(site: Site, authority: Authority) -> None:
    site.json("/.well-known/openid-configuration", {"issuer": site.url, "jwks_uri": f"{site.url}/keys"})
    site.json("/keys", authority.key_set())


def test_keys_are_discovered_from_the_issuer(site: Site) -> None:
    authority = Authority(site.url)
    discovered(site, authority)
    token = f"Bearer {authority.token(TENANT, BASE)}".encode()

    async def run() -> None:
        door = authenticator(site)
        await asyncio.gather(*(door.authenticate(token, TENANT, BASE) for _ in range(20)))
        await door.close()

    asyncio.run(run())
    assert site.asked["/keys"] == 1


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": 5},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
        {"jwks_uri": "/keys"},
    ],
)
def test_a_discovery_document_that_leads_astray_is_not_followed(site: Site, document: dict[str, Any]) -> None:
    authority = Authority(site.url)
    discovered(site, authority)
    told = {"issuer": site.url, "jwks_uri": f"{site.url}/keys", **document}
    site.json("/.well-known/openid-configuration", told)
    token = authority.token(TENANT, BASE)
    with pytest.raises(FhirError) as error:
        answered(authenticator(site), token)
    assert error.value.status == 503
    assert ("Retry-After", "5") in error.value.headers
    assert site.asked["/keys"] == 0


def test_no_address_that_a_token_names_is_fetched(site: Site) -> None:
    elsewhere = Authority("https://other.example")
    authority = Authority(site.url)
    discovered(site, authority)
    header = {"jku": f"{site.url}/jku", "x5u": f"{site.url}/x5u", "kid": "second"}
    authority.add("second", authority.keys["first"])
    for token in (
        elsewhere.token(TENANT, BASE, iss=f"{site.url}/evil"),
        elsewhere.token(TENANT, BASE, iss="http://169.254.169.254"),
        elsewhere.token(TENANT, BASE, header={"jku": f"{site.url}/jku"}),
        authority.token(TENANT, BASE, header=header),
    ):
        with pytest.raises(FhirError) as error:
            answered(authenticator(site), token)
        assert error.value.status == 401
    assert set(site.asked) <= {
        "/keys",
        "/.well-known/openid-configuration",
        "/.well-known/smart-configuration",
        "/.well-known/oauth-authorization-server",
    }


def test_a_withdrawn_key_closes_the_door_to_remembered_tokens(tmp_path: Path) -> None:
    authority = Authority()
    settings = load(auth="smart", issuer=authority.issuer, jwks_url=authority.write(tmp_path))
    token = f"Bearer {authority.token(TENANT, BASE)}".encode()

    async def run() -> None:
        door = Authenticator(settings)
        clock = Clock()
        door.issuers.by_url[authority.issuer].keys._kept._clock = clock
        assert (await door.authenticate(token, TENANT, BASE)).client == "app"
        authority.add("first")
        authority.write(tmp_path)
        assert (await door.authenticate(token, TENANT, BASE)).client == "app"
        clock.now = float("inf")
        await door.authenticate(token, TENANT, BASE)
        await settled()
        with pytest.raises(FhirError) as error:
            await door.authenticate(token, TENANT, BASE)
        assert error.value.status == 401
        await door.close()

    asyncio.run(run())


# introspection


def introspecting(site: Site, **settings: Any) -> Authenticator:
    return Authenticator(
        load(
            auth="smart", issuer="https://auth.example", introspection_url=f"{site.url}/introspect",
            introspection_client_id="fhir", introspection_client_secret="pass word", **settings,
        ),
    )  # fmt: skip


def active(**changed: Any) -> dict[str, Any]:
    told = {
        "active": True, "scope": "patient/Appointment.rs", "client_id": "app", "exp": int(time.time()) + 7200,
        "sub": "ann", "patient": "123", "tenant_id": TENANT, **changed,
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def test_an_opaque_token_is_asked_about_once_and_then_remembered_briefly(site: Site) -> None:
    site.json("/introspect", active())
    clock = [time.time()]
    door = introspecting(site)
    door._now = lambda: clock[0]

    async def run() -> None:
        callers = await asyncio.gather(*(door.authenticate(b"Bearer opaque", TENANT, BASE) for _ in range(20)))
        assert {caller.patient for caller in callers} == {"Patient/123"}
        assert site.asked["/introspect"] == 1
        headers, body = site.sent[0]
        assert headers["Authorization"] == "Basic ZmhpcjpwYXNzIHdvcmQ="
        assert body == b"token=opaque&token_type_hint=access_token"
        clock[0] += KEPT_S + 1
        site.json("/introspect", {"active": False})
        with pytest.raises(FhirError) as error:
            await door.authenticate(b"Bearer opaque", TENANT, BASE)
        assert error.value.status == 401
        await door.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"active": False}, 401),
        ({"active": "true"}, 401),
        ({"active": 1}, 401),
        ({}, 401),
        (active(exp=int(time.time()) - 60), 401),
        (active(exp="never"), 401),
        (active(scope=None), 401),
        (active(token_type="refresh_token"), 401),
        (active(cnf={"jkt": "x"}), 401),
        (active(aud="https://other.example"), 401),
        (active(aud=[BASE, BASE]), 401),
        (active(iss="https://evil.example"), 401),
        (active(patient=5), 401),
        (active(tenant_id=None), 403),
        (active(tenant_id="5eed0000-0000-4000-8000-000000000002"), 403),
        (active(aud=BASE, iss="https://auth.example", exp=None, token_type="Bearer"), 200),
    ],
)
def test_what_the_endpoint_says_is_checked_as_well(site: Site, answer: dict[str, Any], status: int) -> None:
    site.json("/introspect", answer)
    got = 200
    try:
        answered(introspecting(site), "opaque")
    except FhirError as error:
        got = error.status
    assert got == status


def test_an_endpoint_that_does_not_answer_is_503_and_not_401(site: Site) -> None:
    site.json("/introspect", {}, status=500)
    with pytest.raises(FhirError) as error:
        answered(introspecting(site), "opaque")
    assert error.value.status == 503
    assert "opaque" not in str(error.value)
