"""Where the files beside the code are: `sql/` and `capability/`, in a checkout and in an installed wheel alike.

A wheel carries them inside the package; a checkout has them beside `src/`. Knows nothing of what is in them.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def directory(name: str) -> Path:
    """The directory `name`; FileNotFoundError when neither the package nor the checkout has it."""
    for candidate in (_PACKAGE / name, _PACKAGE.parent.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"fhir-sched was installed without its directory {name}/: install it again")
