"""Event -> CloudEvents 1.0 in JSON, one document each (structured mode of every binding).

The resource is there as JSON already; it is put into the document as it stands, where a library would take it apart and
write it again. What comes out is held against the CloudEvents SDK in the tests. Knows no sink.
"""

from __future__ import annotations

from typing import Final

import orjson

from fhir_sched.events.event import Event

CONTENT_TYPE: Final = "application/cloudevents+json"


def structured(event: Event, root: str, *, whole: bool) -> bytes:
    """The event as a JSON document; `root` stands before `/fhir/<tenant>` in its source.

    `data` is the resource (`whole`) or a FHIR Reference to it, absent after a delete; of another program's row the
    payload, either way.
    """
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": f"{root}/fhir/{event.tenant}",
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
    }
    if event.deleted:
        return orjson.dumps(attributes)
    attributes["datacontenttype"] = "application/fhir+json" if event.reference else "application/json"
    if not event.reference:
        data = event.payload
    elif whole and event.resource is not None:
        data = event.resource
    else:
        data = orjson.dumps({"reference": event.reference})
    return orjson.dumps({**attributes, "data": orjson.Fragment(data)})
