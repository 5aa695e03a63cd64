"""An authorization server for tests: keys, tokens, and where wanted an HTTP server that counts what it is asked."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

ISSUER = "https://auth.example/realm"
Claims = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]


class Authority:
    """One issuer with one RSA key `first`; more by `add`. `token` signs what an access token says, with changes."""

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.keys: dict[str, Key] = {}
        self.add("first")

    def add(self, kid: str, key: Key | None = None) -> Key:
        """A key that is in the set from now on."""
        self.keys[kid] = key or RSAKey.generate_key(2048)
        return self.keys[kid]

    def key_set(self) -> Claims:
        """The public JWK set."""
        return {"keys": [{**key.as_dict(private=False), "kid": kid} for kid, key in self.keys.items()]}

    def write(self, directory: Path) -> str:
        """The key set as a file; its `file:` URL."""
        path = directory / "keys.json"
        path.write_text(json.dumps(self.key_set()))
        return path.as_uri()

    def claims(self, tenant: object, audience: object, **changed: Any) -> Claims:
        """What a good token says; a change to None leaves the claim out."""
        now = int(time.time())
        told = {
            "iss": self.issuer, "aud": audience, "sub": "somebody", "client_id": "app", "iat": now, "exp": now + 300,
            "scope": "user/*.cruds", "tenant_id": str(tenant), **changed,
        }  # fmt: skip
        return {name: value for name, value in told.items() if value is not None}

    def token(self, tenant: object, audience: object, *, header: Claims | None = None, **changed: Any) -> str:
        """A token signed with the first key, or the one whose `kid` the header names."""
        claims = self.claims(tenant, audience, **changed)
        return self.signed(claims, {"alg": "RS256", "kid": "first", **(header or {})})

    def signed(self, claims: Claims, header: Claims) -> str:
        """The claims under that header, signed by the key that it names."""
        key = self.keys[str(header["kid"])]
        return jwt.encode(header, claims, key, algorithms=[header["alg"]])


def ec_key(curve: str) -> ECKey:
    """A new key on that curve."""
    return ECKey.generate_key(curve)


def encoded(part: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class Site:
    """A local HTTP server: `serve[path]` answers; `asked` counts the requests by path."""

    def __init__(self) -> None:
        self.serve: dict[str, Callable[[bytes], Answer]] = {}
        self.asked: Counter[str] = Counter()
        self.sent: list[tuple[dict[str, str], bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def json(self, path: str, document: Any, status: int = 200, **headers: str) -> None:
        """Answer a path with JSON from now on."""
        body = json.dumps(document).encode()
        self.serve[path] = lambda _: (status, {"Content-Type": "application/json", **headers}, body)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                site.asked[self.path] += 1
                site.sent.append((dict(self.headers), sent))
                answer = site.serve.get(self.path)
                status, headers, body = answer(sent) if answer else (404, {}, b"")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator[Site]:
        """Serve for the duration of the context."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
