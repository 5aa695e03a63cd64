"""The files in capability/ that the declarations make: writes them, or with `--check` only says which is behind.

The CapabilityStatement has a neutral base; the definitions are those that the server serves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fhir_sched import capability, document, profiles

DIRECTORY: Final = Path(__file__).resolve().parent.parent / "capability"


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each file's name and the resource that it holds."""
    yield "CapabilityStatement.json", capability.statement(capability.NEUTRAL_BASE)
    for kind, found in profiles.definitions().items():
        for name, resource in found.items():
            yield f"{kind}-{name}.json", resource


def generated() -> dict[str, bytes]:
    """The files' contents by their names."""
    return {name: document.dumps(resource, pretty=True) + b"\n" for name, resource in resources()}


def behind() -> list[str]:
    """What differs between the directory and what the declarations make, one sentence a file."""
    made = generated()
    there = {path.name: path.read_bytes() for path in DIRECTORY.glob("*.json")}
    return [
        f"capability/{name} {_fault(name in made, name in there)}"
        for name in sorted(made.keys() | there.keys())
        if made.get(name) != there.get(name)
    ]


def _fault(made: bool, there: bool) -> str:
    if not made:
        return "is no longer made"
    return "is behind" if there else "is missing"


def write() -> None:
    """Bring the directory up to date."""
    DIRECTORY.mkdir(exist_ok=True)
    made = generated()
    for path in DIRECTORY.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (DIRECTORY / name).write_bytes(content)


def main() -> int:
    """Exit code 1 when `--check` finds a file that is behind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, only say what is behind")
    if not parser.parse_args().check:
        write()
        return 0
    found = behind()
    for sentence in found:
        print(f"{sentence}: run python tools/generated.py", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
