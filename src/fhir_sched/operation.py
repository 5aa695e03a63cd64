"""What an operation is: its name, where and how it is invoked, what goes in and out, what it needs. R4 3.2, 6.5.

Dispatch, the CapabilityStatement, the OpenAPI document and the published OperationDefinitions read the same value.
Knows neither which operations there are (`resources.operations`) nor what they do (`interactions.operations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fhir_sched.element import EXTENSION_BASE

CANONICAL_BASE = EXTENSION_BASE.removesuffix("StructureDefinition/")
"""What the canonical URLs of the product's own definitions begin with."""

Level = Literal["system", "type", "instance"]


@dataclass(frozen=True)
class Parameter:
    """One input or output. `max` is a number or `*`; `targets` are canonical URLs of what a Reference may point to.

    `search_type` is for a string that is written like a search parameter of that type (a token: `system|code`).
    """

    name: str
    type: str
    doc: str
    min: int = 0
    max: str = "1"
    targets: tuple[str, ...] = ()
    search_type: str = ""


@dataclass(frozen=True)
class Operation:
    """One operation. `type` is the resource type, "" for one of the system level alone.

    `needs` are the scopes without which it is refused before it begins: types with letters of `cruds`; what it touches
    is limited again where it is touched. `defined` is the canonical URL of who else defines it; without one the
    product's own is meant. GET is possible only for what does not affect state (R4 3.2.0.2). `public`: no token is
    asked for, and it is answered beside the resources. `paged`: a next link leads on, and holds the inputs.
    """

    code: str
    type: str
    title: str
    doc: str
    inputs: tuple[Parameter, ...] = ()
    outputs: tuple[Parameter, ...] = ()
    levels: tuple[Level, ...] = ("type",)
    methods: tuple[str, ...] = ("POST",)
    affects_state: bool = True
    needs: tuple[tuple[str, str], ...] = ()
    defined: str = ""
    public: bool = False
    paged: bool = False

    @property
    def id(self) -> str:
        """The logical id of its OperationDefinition, such as `appointment-find`; unique among all."""
        return f"{self.type.lower()}-{self.code}" if self.type else self.code

    @property
    def url(self) -> str:
        """The canonical URL of the product's own OperationDefinition."""
        return f"{CANONICAL_BASE}OperationDefinition/{self.id}"

    @property
    def definition(self) -> str:
        """The canonical URL that the CapabilityStatement names."""
        return self.defined or self.url

    @property
    def word(self) -> str:
        """Its part of a URL: `$find`."""
        return f"${self.code}"
