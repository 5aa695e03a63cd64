"""One interaction asked for, however it came: as an HTTP request or as an entry of a Bundle. R4 3.1.0, 3.1.0.10.

Knows neither HTTP nor Bundles; whoever makes a Call has decoded the URL and checked the media type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fhir_sched.interactions.context import Condition
from fhir_sched.record import record


@record
class Call:
    """Method, path below the base, parameters, body and preconditions.

    `body` parses when it is asked for and raises 400 or 415. `unchanged_since` are If-None-Match versions (empty: any)
    and If-Modified-Since (an HTTP date); `none_exist` is the query of If-None-Exist, None where there is none; `row_id`
    is an id chosen in advance for a create. `json_patch` parses the operations of a JSON Patch, and is None where the
    body is none.
    `strict`: unknown search parameters are refused. `bodyless`: nothing was sent that `body` could parse.
    """

    method: str
    path: list[str]
    pairs: list[tuple[str, str]]
    body: Callable[[], dict[str, Any]]
    strict: bool = False
    match: Condition | None = None
    none_match: Condition | None = None
    modified_since: str = ""
    none_exist: str | None = None
    row_id: str | None = None
    json_patch: Callable[[], Any] | None = None
    bodyless: bool = False
