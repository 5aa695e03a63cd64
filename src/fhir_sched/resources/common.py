"""Search parameters that every resource has (R4 3.1.1.4.2 to 3.1.1.4.4)."""

from __future__ import annotations

from fhir_sched.binding import IdColumn, InstantColumn, SideTable
from fhir_sched.definition import DateParam, Param, TokenParam, UriParam


def common_params(sources: int) -> tuple[Param, ...]:
    """`_id`, `_lastUpdated`, `_tag`, `_security`, `_profile`, `_source` for a resource with that many sources."""
    return (
        TokenParam(
            "_id", "Resource.id", "Logical id of this artifact", (IdColumn(),) * sources, True,
            "http://hl7.org/fhir/SearchParameter/Resource-id", kind="id",
        ),
        DateParam(
            "_lastUpdated", "Resource.meta.lastUpdated", "When the resource version last changed",
            (InstantColumn("updated_at"),) * sources, True, "http://hl7.org/fhir/SearchParameter/Resource-lastUpdated",
        ),
        TokenParam(
            "_tag", "Resource.meta.tag", "Tags applied to this resource", (SideTable(),) * sources, False,
            "http://hl7.org/fhir/SearchParameter/Resource-tag", kind="coding", path=("meta", "tag"),
        ),
        TokenParam(
            "_security", "Resource.meta.security", "Security Labels applied to this resource",
            (SideTable(),) * sources, False, "http://hl7.org/fhir/SearchParameter/Resource-security",
            kind="coding", path=("meta", "security"),
        ),
        UriParam(
            "_profile", "Resource.meta.profile", "Profiles this resource claims to conform to",
            (SideTable(),) * sources, False, "http://hl7.org/fhir/SearchParameter/Resource-profile",
            path=("meta", "profile"),
        ),
        UriParam(
            "_source", "Resource.meta.source", "Identifies where the resource comes from",
            (SideTable(),) * sources, False, "http://hl7.org/fhir/SearchParameter/Resource-source",
            path=("meta", "source"),
        ),
    )  # fmt: skip
