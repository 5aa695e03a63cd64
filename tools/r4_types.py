"""Digests the published R4 (4.0.1) definitions into `src/fhir_sched/r4/types.json`.

Usage: `python tools/r4_types.py --spec DIR [--check]`, DIR being a folder that holds `fhir-r4/`. StructureDefinitions
are the source; resource and data types that have none there come from the JSON schema, which knows neither summary,
modifier nor reference targets. Only facts go in: names, order, types, cardinality, flags, required codes, targets.

The digest is `{"codes": {key: [code]}, "types": {name: [kind, base, {element: row}]}}`, one type a line; a row is
`[types, cardinality, flags, codes key, targets]` without its empty tail; lists are joined with `|`, flags are
s = in the summary, m = modifier, a = attribute in XML. An element whose name ends in `[x]` is a choice of types.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

DIGEST = Path(__file__).parent.parent / "src" / "fhir_sched" / "r4" / "types.json"
PREFIX = "http://hl7.org/fhir/StructureDefinition/"
SYSTEM = "http://hl7.org/fhirpath/System."
# Data types that only the JSON schema describes here.
OTHER_TYPES = frozenset(
    {"ElementDefinition", "MarketingStatus", "Population", "ProdCharacteristic", "ProductShelfLife", "SubstanceAmount"}
)
Row = list[str]
Type = tuple[str, str, dict[str, Row]]


def main() -> int:
    """Writes the digest, or with `--check` says (exit status 1) that the one in the tree is not current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spec", type=Path, required=True, help="folder that holds fhir-r4/")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    options = parser.parse_args()
    text = rendered(Digest(options.spec / "fhir-r4"))
    if not options.check:
        DIGEST.write_text(text, encoding="utf-8")
        return 0
    current = DIGEST.exists() and DIGEST.read_text(encoding="utf-8") == text
    if not current:
        print(f"{DIGEST.name} is not what the definitions say: run tools/r4_types.py without --check", file=sys.stderr)
    return 0 if current else 1


def rendered(digest: Digest) -> str:
    """The digest as JSON with one code list or type a line, so that differences read well."""
    sections = []
    for title, entries in (("codes", digest.codes), ("types", digest.types)):
        lines = (f"{json.dumps(key)}:{json.dumps(entries[key], separators=(',', ':'))}" for key in sorted(entries))
        sections.append(f'"{title}":{{\n' + ",\n".join(lines) + "\n}")
    return "{" + ",\n".join(sections) + "}\n"


class Digest:
    """Everything read from one folder of definitions: `.codes` and `.types`."""

    def __init__(self, root: Path) -> None:
        self.codes: dict[str, list[str]] = {}
        self.types: dict[str, Type] = {}
        self._keys: dict[tuple[str, ...], str] = {}
        self._backbones: dict[str, str] = {}
        schema = root / "json-schema" / "fhir.schema.json"
        self._schema: dict[str, Any] = json.loads(schema.read_text(encoding="utf-8"))["definitions"]
        self._value_sets = _value_sets(root / "terminology")
        published = set(self._value_sets["http://hl7.org/fhir/ValueSet/resource-types"])
        for folder in ("datatypes", "resources"):
            for path in sorted((root / "structuredefinitions" / folder).glob("*.json")):
                self._add_definition(json.loads(path.read_text(encoding="utf-8")))
        self._primitives = {name for name, (kind, _, _) in self.types.items() if kind == "primitive"}
        for name, definition in sorted(self._schema.items()):
            is_resource = "resourceType" in definition.get("properties", {})
            wanted = name in published if is_resource else name in OTHER_TYPES
            if wanted and name not in self.types:
                self._add_schema_type(name, name, is_resource=is_resource)

    def _add_definition(self, definition: dict[str, Any]) -> None:
        name = definition["type"]
        base = definition.get("baseDefinition", "").removeprefix(PREFIX)
        kind = {"primitive-type": "primitive", "complex-type": "complex", "resource": "resource"}[definition["kind"]]
        self.types[name] = (kind, base, {})
        if kind == "primitive":
            return
        elements = definition["snapshot"]["element"][1:]
        parents = {element["path"].rpartition(".")[0] for element in elements}
        for element in elements:
            path: str = element["path"]
            parent, _, local = path.rpartition(".")
            if path in parents:
                self.types[path] = ("backbone", element["type"][0]["code"], {})
            self.types[parent][2][local] = self._row(element, own=path in parents)

    def _row(self, element: dict[str, Any], *, own: bool) -> Row:
        path: str = element["path"]
        if own:
            types = [path]
        elif "contentReference" in element:
            types = [element["contentReference"].removeprefix("#")]
        else:
            types = [self._type_code(entry, path) for entry in element["type"]]
        marks = {
            "s": element.get("isSummary"),
            "m": element.get("isModifier"),
            "a": element.get("representation") == ["xmlAttr"],
        }
        references = (entry for entry in element.get("type", []) if entry["code"] == "Reference")
        targets = (target for entry in references for target in entry.get("targetProfile", []))
        return _trimmed(
            "|".join(types),
            f"{element['min']}..{element['max']}",
            "".join(letter for letter, on in marks.items() if on),
            self._required_codes(element, types),
            "|".join(target.removeprefix(PREFIX) for target in targets),
        )

    def _type_code(self, entry: dict[str, Any], path: str) -> str:
        """The type of an element; FHIRPath's own types stand for an `id` or an extension's url."""
        code: str = entry["code"]
        if not code.startswith(SYSTEM):
            return code
        if path.endswith(".url"):
            return "uri"
        owner = path.rpartition(".")[0]
        return "id" if self.types[owner][0] == "resource" else "string"

    def _required_codes(self, element: dict[str, Any], types: list[str]) -> str:
        binding = element.get("binding", {})
        if binding.get("strength") != "required" or types != ["code"]:
            return ""
        url = binding["valueSet"].partition("|")[0]
        codes = self._value_sets.get(url) or self._schema_codes(element["path"])
        return self._codes_key(codes, url.rpartition("/")[2])

    def _schema_codes(self, path: str) -> list[str]:
        owner, _, local = path.rpartition(".")
        first, *rest = owner.split(".")
        candidates = [first] if not rest else [f"{first}_{rest[-1][0].upper()}{rest[-1][1:]}"]
        for candidate in candidates:
            entry = self._schema.get(candidate, {}).get("properties", {}).get(local, {})
            codes: list[str] = entry.get("enum") or entry.get("items", {}).get("enum") or []
            if codes:
                return codes
        return []

    def _codes_key(self, codes: list[str], proposal: str) -> str:
        if not codes:
            return ""
        key = self._keys.setdefault(tuple(codes), proposal)
        if self.codes.setdefault(key, codes) != codes:
            raise SystemExit(f"two different code lists are called {key}")
        return key

    def _add_schema_type(self, path: str, definition_name: str, *, is_resource: bool) -> None:
        definition = self._schema[definition_name]
        properties: dict[str, Any] = definition["properties"]
        if is_resource:
            kind, base = "resource", "DomainResource" if "contained" in properties else "Resource"
        else:
            backbone = "modifierExtension" in properties
            kind, base = ("backbone" if "." in path else "complex"), ("BackboneElement" if backbone else "Element")
        elements: dict[str, Row] = {}
        self.types[path] = (kind, base, elements)
        pattern = self.types["DomainResource" if is_resource else "BackboneElement"][2]
        required = set(definition.get("required", []))
        for name, choices in _grouped(properties, self.types):
            if name in pattern:
                elements[name] = pattern[name]
            elif name.endswith("[x]"):
                elements[name] = ["|".join(choices), "0..1"]
            else:
                elements[name] = self._schema_row(path, name, properties[name], required=name in required)

    def _schema_row(self, owner: str, name: str, entry: dict[str, Any], *, required: bool) -> Row:
        cardinality = f"{int(required)}..{'*' if entry.get('type') == 'array' else '1'}"
        single = entry.get("items", entry)
        if "enum" in single:
            return _trimmed("code", cardinality, "", self._codes_key(single["enum"], f"{owner}.{name}"), "")
        if "$ref" not in single:
            raise SystemExit(f"{owner}.{name}: {single} is not understood")
        target = single["$ref"].rpartition("/")[2]
        if target == "ResourceList":
            target = "Resource"
        if "_" not in target:
            return [target, cardinality]
        known = self._backbones.get(target)
        if known is None:
            known = self._backbones[target] = f"{owner}.{name}"
            self._add_schema_type(known, target, is_resource=False)
        return [known, cardinality]


def _grouped(properties: dict[str, Any], types: dict[str, Type]) -> list[tuple[str, list[str]]]:
    """Property names in order, those of one choice (same description, names ending in their types) taken together."""
    capital = {name[0].upper() + name[1:]: name for name in types if "." not in name}
    groups: dict[tuple[str, str], list[str]] = {}
    placed: list[tuple[str, list[str]]] = []
    for name, entry in properties.items():
        if name == "resourceType" or name.startswith("_"):
            continue
        suffixes = [suffix for suffix, kind in capital.items() if name.endswith(suffix) and _fits(entry, kind)]
        if not suffixes:
            placed.append((name, []))
            continue
        suffix = max(suffixes, key=len)
        key = (name.removesuffix(suffix), entry.get("description", ""))
        if key not in groups:
            groups[key] = []
            placed.append((f"{key[0]}[x]", groups[key]))
        groups[key].append(capital[suffix])
    singles = {f"{start}[x]": types for (start, _), types in groups.items() if len(types) == 1}
    return [(_joined(name, singles[name][0]) if name in singles else name, choices) for name, choices in placed]


def _joined(choice: str, type_name: str) -> str:
    return choice.removesuffix("[x]") + type_name[0].upper() + type_name[1:]


def _fits(entry: dict[str, Any], type_name: str) -> bool:
    """Whether the property could be the choice of that type: only choices of primitives are inline patterns."""
    if "pattern" in entry:
        return type_name[0].islower()
    return bool(entry.get("$ref") == f"#/definitions/{type_name}") and type_name[0].isupper()


def _value_sets(folder: Path) -> dict[str, list[str]]:
    """The codes of each value set that only lists codes or takes whole code systems of the folder."""
    systems: dict[str, list[str]] = {}
    for path in sorted(folder.glob("CodeSystem-*.json")):
        system = json.loads(path.read_text(encoding="utf-8"))
        if system.get("content") == "complete":
            systems[system["url"]] = _concepts(system.get("concept", []))
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("ValueSet-*.json")):
        value_set = json.loads(path.read_text(encoding="utf-8"))
        codes: list[str] = []
        for include in value_set.get("compose", {}).get("include", []):
            listed = _concepts(include.get("concept", [])) or systems.get(include.get("system"), [])
            if not listed or "filter" in include or "valueSet" in include:
                codes = []
                break
            codes += listed
        found[value_set["url"]] = codes
    return found


def _concepts(concepts: list[dict[str, Any]]) -> list[str]:
    return [code for concept in concepts for code in (concept["code"], *_concepts(concept.get("concept", [])))]


def _trimmed(*row: str) -> Row:
    kept = list(row)
    while not kept[-1]:
        kept.pop()
    return kept


if __name__ == "__main__":
    sys.exit(main())
