"""read and search of what the product itself defines (StructureDefinition …). R4 3.1.0.1, 3.1.1; 5.4.

Made from the declarations, the same for every tenant. They are short: `_summary` and `_elements` are taken and get the
whole, as R4 3.1.1.5.6 allows; the element tables do not say what is mandatory in these types. Knows nothing of HTTP or
the database.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fhir_sched import bundle, document, profiles
from fhir_sched.outcome import FhirError, Issue, Kind
from fhir_sched.search.parse import NOT_OURS
from fhir_sched.subset import PARAMETERS, part

Pairs = Iterable[tuple[str, str]]
FORM: Final = "_search"


def at(path: list[str]) -> bool:
    """Whether a path is that of such a type, or of one of its resources."""
    return 1 <= len(path) <= 2 and path[0] in profiles.definitions()


def is_one(path: list[str]) -> bool:
    """Whether a path is that of a definition."""
    return len(path) == 2 and at(path)


def shown(base: str, path: list[str], pairs: Pairs, *, strict: bool) -> bytes:
    """The resource or the searchset at such a path. Raises 404 for an unknown id."""
    listed = list(pairs)
    return _read(path[0], path[1], listed) if len(path) == 2 else _search(path[0], base, listed, strict=strict)


def _read(kind: str, fhir_id: str, pairs: Pairs) -> bytes:
    served = profiles.definitions()[kind]
    if fhir_id not in served:
        raise FhirError(Kind.NOT_FOUND, f"there is no {kind}/{fhir_id}; there are {', '.join(served) or 'none'}")
    part(pairs)
    return document.dumps(served[fhir_id])


def _search(kind: str, base: str, pairs: Pairs, *, strict: bool) -> bytes:
    """A searchset of the definitions of that type; unknown parameters by handling, as everywhere."""
    known = {param.name for param in profiles.params(kind)}
    given = [(name, value) for name, value in pairs if name not in NOT_OURS]
    used = [(name, value) for name, value in given if name in known or name in PARAMETERS]
    ignored = [
        f"{kind} has no search parameter {name!r}; it was not used; it takes {', '.join(sorted(known))}"
        for name, _ in given
        if name not in known and name not in PARAMETERS
    ]
    if ignored and strict:
        raise FhirError.of(Issue(Kind.NOT_SUPPORTED, why) for why in ignored)
    found = [
        each
        for each in profiles.definitions()[kind].values()
        if all(_fits(each, name, value) for name, value in used if name in known)
    ]
    entries = [bundle.entry(f"{base}/{kind}/{each['id']}", document.dumps(each)) for each in found]
    links = [("self", bundle.url(base, kind, used))]
    return bundle.searchset([] if part(given).summary == "count" else entries, links, len(entries), ignored)


def _fits(found: dict[str, Any], name: str, value: str) -> bool:
    return found[name.removeprefix("_")] in value.split(",")
