"""The tables in the documentation that the code knows better: writes them between their marks, or checks them.

`python tools/documents.py` writes, `--check` only says which file is behind. A region begins with
`<!-- generated: name -->` and ends with `<!-- end -->`; whatever stands around it is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from fhir_sched.db.limits import Limits
from fhir_sched.definition import Param, ReferenceParam, Resource, TokenParam
from fhir_sched.document import MAX_DEPTH
from fhir_sched.http.app import MAX_BODY, MAX_URL
from fhir_sched.http.protocol import BODY_S, HEAD_S, MAX_HEAD, MAX_HEADERS
from fhir_sched.interactions.entries import MAX_ENTRIES
from fhir_sched.interactions.idempotent import MAX_KEY
from fhir_sched.interactions.include import MAX_STEPS, REVERSE_LIMIT
from fhir_sched.patch.limits import MAX_BYTES, MAX_OPERATIONS
from fhir_sched.resources import RESOURCES, SERVED
from fhir_sched.resources.topics import TOPICS
from fhir_sched.scheduling.booking_rules import RULES
from fhir_sched.scheduling.statuses import NEXT
from fhir_sched.search.parse import MAX_CHAIN, MAX_PARAMETERS, MAX_VALUES, modifiers
from fhir_sched.search.result import DEFAULT_COUNT, MAX_COUNT, MAX_INCLUDES
from fhir_sched.search.sql import ESTIMATE_LIMIT
from fhir_sched.settings import PREFIX, Settings

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = ("README.md", "docs/search.md", "docs/operations.md", "docs/rules.md", "docs/subscriptions.md")
_REGION: Final = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _bytes(number: int) -> str:
    """A number of bytes in the largest unit in which it is whole."""
    return f"{number // 1024**2} MiB" if number % 1024**2 == 0 else f"{number // 1024} KiB"


# Settings


def settings() -> str:
    """Every setting with its default and meaning, as `serve --help` tells them."""
    used = _read_settings()
    rows = ((name, field, name in used) for name, field in Settings.model_fields.items())
    return table(("setting", "default", "meaning"), (_setting(*row) for row in rows))


def _setting(name: str, field: FieldInfo, used: bool) -> tuple[str, str, str]:
    said, _, default = (field.description or "").partition(" [default: ")
    if default:
        shown = default.rstrip("]")
    elif field.default in (None, ()):
        shown = "none"
    else:
        shown = f"`{field.default}`"
    return f"`{PREFIX}{name.upper()}`", shown, said if used else f"{said} (checked at start; nothing reads it yet)"


def _read_settings() -> set[str]:
    """The settings that some module of the product asks for, by attribute."""
    names = set(Settings.model_fields)
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "settings.py":
            attributes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute))
            found |= {node.attr for node in attributes if "settings" in ast.unparse(node.value)} & names
    return found


# Search


def parameters(resource: Resource) -> str:
    """The search parameters of a type."""
    head = ("name", "type", "element", "modifiers", "codes", "`_sort`")
    return table(head, (_parameter(param) for param in resource.params))


def _parameter(param: Param) -> tuple[str, ...]:
    taken = [f"`:{modifier}`" for modifier in modifiers(param)]
    if isinstance(param, ReferenceParam) and len(param.targets) != 1:
        taken.append(" ".join(f"`:{target}`" for target in param.targets) or "`:[type]`")
    codes = sorted(param.codes) if isinstance(param, TokenParam) else []
    return (
        f"`{param.name}`",
        param.type,
        f"`{param.expression}`",
        " ".join(taken),
        " ".join(f"`{code}`" for code in codes),
        "yes" if param.sortable else "",
    )


def includes() -> str:
    """The references that `_include` and `_revinclude` follow."""
    rows = (
        (f"`{resource.type}:{param.name}`", resource.type, ", ".join(param.targets))
        for resource in RESOURCES.values()
        for param in resource.hosted
    )
    return table(("include", "from", "to"), rows)


def limits() -> str:
    """What one request may ask for, and what happens beyond it."""
    rows = (
        ("entries of a page when `_count` says nothing", f"{DEFAULT_COUNT}", ""),
        ("`_count`", f"{MAX_COUNT}", "a larger number counts as this one"),
        ("parameters of a search", f"{MAX_PARAMETERS}", "400"),
        ("values of a parameter, separated by commas", f"{MAX_VALUES}", "400"),
        ("links of a chain or of nested `_has`", f"{MAX_CHAIN}", "400"),
        ("`_include` and `_revinclude` of a search", f"{MAX_INCLUDES}", "400"),
        ("steps that `:iterate` follows", f"{MAX_STEPS}", "no further"),
        ("resources that one `_revinclude` adds a step", f"{REVERSE_LIMIT}", "a warning in the Bundle"),
        ("`_total=estimate`", f"{ESTIMATE_LIMIT}", "counts no further"),
        ("path and query of a URL", _bytes(MAX_URL), "414; `POST _search` takes the parameters as body"),
    )
    return table(("what", "limit", "beyond it"), rows)


# Operations


def request_limits() -> str:
    """What the server reads of one request."""
    rows = (
        ("body", _bytes(MAX_BODY), "413"),
        ("path and query of a URL", _bytes(MAX_URL), "414"),
        ("request line and headers", _bytes(MAX_HEAD), "431"),
        ("number of headers", f"{MAX_HEADERS}", "431"),
        ("time for the head to arrive", f"{HEAD_S:.0f} s", "408"),
        ("time for the body to arrive", f"{BODY_S:.0f} s", "408"),
        ("depth of a JSON document", f"{MAX_DEPTH}", "400"),
        ("entries of a batch or transaction", f"{MAX_ENTRIES}", "413"),
        ("operations of a patch", f"{MAX_OPERATIONS}", "413"),
        ("a patch, and the document after each operation", _bytes(MAX_BYTES), "413"),
        ("characters of an `Idempotency-Key`", f"{MAX_KEY}", "400"),
    )
    return table(("what", "limit", "beyond it"), rows)


def database_limits() -> str:
    """What a server process asks of the database, and how long it waits."""
    ours = Limits()
    rows = (
        (
            "connections for reads, shared and pipelined",
            f"{ours.steady + ours.shared}, {ours.steady} of which plan a statement once for all values",
            "",
        ),
        ("connections for writes and slow statements", f"{ours.exclusive}", ""),
        ("requests in flight on one shared connection", f"{ours.in_flight}", "503"),
        ("requests waiting for an exclusive connection", f"{ours.queue}", "503"),
        ("time in that queue", f"{ours.queue_timeout_s:.0f} s", "503"),
        ("time after the loss of every connection in which a request still waits", f"{ours.patience_s:.0f} s", "503"),
        ("wait for a connection after all were lost", f"{ours.patience_s:.0f} s", "503"),
        ("`lock_timeout`", f"{ours.lock_timeout_s:.0f} s", "503"),
        ("`statement_timeout`", f"{ours.statement_timeout_s:.0f} s", "503"),
        ("`idle_in_transaction_session_timeout`", f"{ours.idle_in_transaction_s:.0f} s", "503"),
        ("silence of the database", f"{ours.silence_s:.0f} s", "the connection is given up and opened again"),
    )
    return table(("a server process", "limit", "beyond it"), rows)


# Rules of booking


def booking_rules() -> str:
    """Every rule with its unit and what holds where nobody set it."""
    rows = (
        (
            f"`{rule.name}`",
            rule.unit,
            rule.doc,
            ", ".join(f"{caller} {rule.show(rule.default(caller))}" for caller in rule.callers),
        )
        for rule in RULES.values()
    )
    return table(("rule", "value", "means", "by default"), rows)


def status_order() -> str:
    """The statuses and those that may follow them."""
    rows = (
        (f"`{status}`", " ".join(f"`{each}`" for each in NEXT[status]) or "nothing: it is final") for status in NEXT
    )
    return table(("after", "may come"), rows)


# Subscriptions


def topics() -> str:
    """Every topic, what it tells of, and what its filters search."""
    rows = ((f"`{topic.name}`", topic.doc, topic.resource) for topic in TOPICS.values())
    return table(("topic", "an event", "filters search"), rows)


REGIONS: Final[dict[str, Callable[[], str]]] = {
    "settings": settings,
    "includes": includes,
    "search-limits": limits,
    "request-limits": request_limits,
    "database-limits": database_limits,
    "booking-rules": booking_rules,
    "status-order": status_order,
    "topics": topics,
    **{f"parameters-{name}": lambda name=name: parameters(SERVED[name]) for name in SERVED},  # type: ignore[misc]
}


def current(text: str) -> str:
    """The document with every region as the code has it now. Raises KeyError for a region that nothing makes."""
    return _REGION.sub(lambda found: f"{found[1]}\n{REGIONS[found['name']]()}\n{found[3]}", text)


def main() -> int:
    """Write the regions, or with --check say which documents are behind; 1 when some are."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--check", action="store_true")
    only_check = reader.parse_args().check
    behind = []
    for name in DOCUMENTS:
        path = ROOT / name
        written = path.read_text(encoding="utf-8")
        wanted = current(written)
        if written != wanted:
            behind.append(name)
            if not only_check:
                path.write_text(wanted, encoding="utf-8")
    for name in behind:
        print(f"{name}: {'behind the code, run python tools/documents.py' if only_check else 'written'}")
    return 1 if behind and only_check else 0


if __name__ == "__main__":
    sys.exit(main())
