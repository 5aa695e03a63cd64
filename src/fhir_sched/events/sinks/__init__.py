"""The kinds of sinks, by the scheme of their URL. A new one is a module here and a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from fhir_sched.events.sink import Sink, SinkError
from fhir_sched.events.sinks import discard, files, nats, webhook
from fhir_sched.events.sinks.options import Options

KINDS: Final[dict[str, Callable[[str, str, Options], Sink]]] = {
    "https": webhook.WebhookSink,
    "http": webhook.WebhookSink,
    "nats": nats.NatsSink,
    "tls": nats.NatsSink,
    "file": files.FileSink,
    "stdout": files.OutputSink,
    "discard": discard.DiscardSink,
}


def make(urls: Sequence[str], options: Options) -> list[Sink]:
    """The sinks of these URLs. Raises SinkError for the first that is none."""
    found = [_make(url, options) for url in dict.fromkeys(urls)]
    names = [sink.name for sink in found]
    if len(set(names)) < len(names):
        raise SinkError("two sinks have the same name")
    return found


def _make(url: str, options: Options) -> Sink:
    made = KINDS.get(url.partition(":")[0].lower()) if ":" in url else None
    if made is None:
        raise SinkError(f"a sink is one of {', '.join(f'{kind}:' for kind in KINDS)}…, not {url.partition(':')[0]!r}")
    try:
        return made(name(url), url, options)
    except ValueError as error:
        raise SinkError(f"{name(url)}: {error}") from None


def name(url: str) -> str:
    """What a sink is called in the database, in logs and metrics: its URL without what may be secret.

    >>> name("nats://me:word@broker:4222/clinic"), name("https://portal.example/hook?key=1")
    ('nats://broker:4222/clinic#c58bf460', 'https://portal.example/hook#74de0880')
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition(":")[0] + ":"
    plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return plain if plain == url.partition("#")[0] else f"{plain}#{sha256(url.encode()).hexdigest()[:8]}"


__all__ = ["KINDS", "Options", "make", "name"]
