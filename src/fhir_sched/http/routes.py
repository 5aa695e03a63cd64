"""An HTTP request -> a Call -> the Answer's status, headers and body. R4 3.1.0.1 (headers, media types).

What is asked for is decided by `interactions.dispatch`; only what HTTP alone knows is here. Knows nothing of SQL.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from fhir_sched import document
from fhir_sched.db.lanes import Lanes
from fhir_sched.db.replica import Replica
from fhir_sched.db.work import Alone, Beside
from fhir_sched.http import conformance, negotiate, patching, preconditions, publishing
from fhir_sched.http.messages import Headers, Request, Response, decode_form
from fhir_sched.interactions import definitions, entries
from fhir_sched.interactions.batch import batch
from fhir_sched.interactions.call import Call
from fhir_sched.interactions.context import Answer, Context, etag
from fhir_sched.interactions.dispatch import perform
from fhir_sched.interactions.idempotent import checked_key, fingerprint, once
from fhir_sched.interactions.transaction import transaction
from fhir_sched.journal import Journal
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.reference import is_uuid
from fhir_sched.security.caller import Caller
from fhir_sched.security.smart import SmartConfiguration
from fhir_sched.security.tokens import Authenticator
from fhir_sched.settings import SearchHandling, Settings, is_loopback

_CONDITIONAL = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-none-exist"))


class Routes:
    """The FHIR API of one server: `handle` answers every request below `/fhir/`."""

    def __init__(
        self, settings: Settings, lanes: Lanes, journal: Journal | None = None, replica: Replica | None = None
    ) -> None:
        self.journal = journal
        self.settings, self.lanes, self.replica = settings, lanes, replica
        self.strict = settings.search_handling is SearchHandling.STRICT
        self.authenticator = Authenticator(settings)
        self.smart = SmartConfiguration(settings, self.authenticator.issuers, self.authenticator.fetcher)
        self.publishing = publishing.Publishing(settings, replica or lanes)
        self._told = settings.public_url is not None

    async def admit(self, request: Request) -> Caller | None:
        """Who asks, found out before the body is read; None for the few paths that need no token. Raises 401, 403."""
        tenant = _tenant(request.segments[0])
        if request.segments[1:] in conformance.PUBLIC or request.segments[1:2] == [publishing.WORD]:
            return None
        base = f"{request.root}/fhir/{tenant}"
        # Without PUBLIC_URL the base is what the client says, and a token for another server would name that one.
        trusted = self._told or _is_local(request.root)
        given = request.authorization
        request.caller = await self.authenticator.authenticate(given, tenant, base if trusted else "")
        return request.caller

    async def handle(self, request: Request, caller: Caller | None) -> Response:
        """The answer to whom `admit` has let in, or FhirError."""
        tenant, path = _tenant(request.segments[0]), request.segments[1:]
        base = f"{request.root}/fhir/{tenant}"
        if path[:1] == [publishing.WORD]:
            return await self.publishing.respond(base, tenant, request, path)
        if caller is None:
            return await conformance.public(base, tenant, request, path, self.smart)
        if self.journal is not None and request.method not in ("GET", "HEAD"):
            request.trail = self.journal.trail(tenant, caller, request.address, request.request_id)
        if self.replica is not None:
            return await self._beside(self.replica, tenant, base, caller, request)
        work = Alone(self.lanes, tenant, caller.origin)
        return await self._respond(Context(tenant, base, work, caller, self.settings, request.trail), request, path)

    async def _beside(self, replica: Replica, tenant: str, base: str, caller: Caller, request: Request) -> Response:
        """The answer where there is a replica: requests that only show something read there.

        What may have been changed, by a refused request too or by whoever was quicker, is seen there when this comes
        back.
        """
        path = request.segments[1:]
        lags = request.method in ("GET", "HEAD") or path[-1:] in (["_search"], ["$find"])
        work = Beside(self.lanes, replica, tenant, caller.origin, lags=lags)
        try:
            return await self._respond(Context(tenant, base, work, caller, self.settings, request.trail), request, path)
        finally:
            if work.wrote:
                await replica.settled()

    async def close(self) -> None:
        """Let go of the connections to authorization servers."""
        await self.authenticator.close()

    async def _respond(self, context: Context, request: Request, path: list[str]) -> Response:
        if not path and request.method == "POST":
            return _answer(await self._bundle(context, request))
        call = self._call(request, path, strict=self._strict(request))
        mark = _once(request, context.caller)
        if mark is None or path[-1:] == ["_search"]:
            answer = await perform(context, call)
        else:
            answer = await once(context, *mark, lambda inside: perform(inside, call))
        if request.method in ("POST", "PUT", "PATCH"):
            return _written(answer, request)
        if answer.status == 200 and definitions.is_one(path):
            return conformance.cached(answer.body, request)
        return _answer(answer)

    async def _bundle(self, context: Context, request: Request) -> Answer:
        bundle = negotiate.parse(request)
        listed = entries.checked(bundle)
        wanted = preconditions.preference(request.header(b"prefer"), "return").lower()
        manner = entries.Manner(preconditions.versions, self._strict(request), wanted)
        mark = _once(request, context.caller)
        if bundle["type"] == "batch":
            return await batch(context, listed, manner, mark)
        if mark is None:
            return await transaction(context, listed, manner)
        return await once(context, *mark, lambda inside: transaction(inside, listed, manner))

    def _call(self, request: Request, path: list[str], *, strict: bool) -> Call:
        pairs = request.parameters
        if request.method == "GET" and _CONDITIONAL.isdisjoint(request.headers):
            return Call("GET", path, pairs, lambda: patching.body(request), strict=strict, bodyless=not request.body)
        if path[-1:] == ["_search"] and request.method == "POST":
            negotiate.require_form(request)
            pairs = pairs + decode_form(request.body)
        headers = request.headers
        return Call(
            request.method,
            path,
            pairs,
            lambda: patching.body(request),
            strict=strict,
            match=preconditions.versions(_stated(headers, b"if-match"), "If-Match"),
            none_match=preconditions.versions(request.header(b"if-none-match"), "If-None-Match"),
            modified_since=request.header(b"if-modified-since"),
            none_exist=_utf8(headers[b"if-none-exist"]).strip() if b"if-none-exist" in headers else None,
            json_patch=patching.json_patch(request),
            bodyless=not request.body,
        )

    def _strict(self, request: Request) -> bool:
        if b"prefer" not in request.headers:
            return self.strict
        handling = preconditions.preference(request.header(b"prefer"), "handling")
        return handling == "strict" or (self.strict and handling != "lenient")


@lru_cache(maxsize=64)
def _is_local(root: str) -> bool:
    return is_loopback(urlsplit(root).hostname or "")


def _once(request: Request, caller: Caller) -> tuple[str, str] | None:
    """The Idempotency-Key of a POST or PATCH, and what tells the request from others."""
    key = request.headers.get(b"idempotency-key")
    if key is None or request.method not in ("POST", "PATCH"):
        return None
    target = "/".join(request.segments).encode()
    # A token that reaches less far must not get the answer that another one of the same person was given.
    reach = repr((caller.scopes, caller.patient, caller.user)).encode()
    mark = fingerprint(request.method.encode(), target, request.query_string, request.body, reach)
    return checked_key(key.decode("latin-1")), mark


def _stated(headers: Headers, name: bytes) -> str:
    """A header, "" where there is none; a blank one is not that, for a guard that was meant must not get lost."""
    return headers[name].decode("latin-1") or " " if name in headers else ""


def _utf8(header: bytes) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError:
        raise FhirError(Kind.VALUE, "If-None-Exist must be the query of a search, percent-encoded UTF-8") from None


def _answer(answer: Answer) -> Response:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
    if answer.version is not None:
        headers.append((b"etag", etag(answer.version).encode()))
    if answer.modified is not None:
        headers.append((b"last-modified", preconditions.http_date(answer.modified)))
    if answer.location:
        headers.append((b"location", answer.location.encode("latin-1")))
    return Response(answer.status, answer.body, headers)


def _written(answer: Answer, request: Request) -> Response:
    """A create, update or patch, with the body that `Prefer: return=` asks for (R4 3.1.0.1.8)."""
    response = _answer(answer)
    wanted = preconditions.preference(request.header(b"prefer"), "return").lower()
    if not answer.location or not wanted:
        return response
    if wanted == "minimal":
        response.body = b""
    elif wanted == "operationoutcome":
        response.body = document.dumps(answer.report)
    return response


@lru_cache(maxsize=1024)
def _tenant(text: str) -> str:
    if is_uuid(text):
        return text.lower()
    raise FhirError(Kind.NOT_FOUND, "the URL needs a tenant: /fhir/<tenant's UUID>/…")
