"""While an image is built: does what we put into it fit the Python and the packages that are there already?

    python3 -P fits.py FOLDER [MODULE ...]

FOLDER is where our packages are; those of the image go before them. Ends with 1, one line for each thing that does not
fit: a package of the image that is too old for one of ours, a compiled package of ours made for another Python, a
MODULE that the image itself does not have.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = (
    "batchfleet",
    "batchfleet.cli.main",
    "batcher.batcher",
    "gpu_worker.worker",
    "hiredis",
    "msgspec",
    "orjson",
    "pydantic_core",
    "uvloop",
)
"""What is imported for a look: the programs, and what is compiled for one version of Python."""

LEFT_OUT = frozenset({"asgiref", "django"})
"""What packages of ours ask for, and the parts that we use do not need: `override-dependencies` in pyproject.toml."""


def misfits(folder: Path, modules: Sequence[str]) -> Iterator[str]:
    """What is wrong, in words; nothing if nothing is."""
    for ours in distributions(path=[str(folder)]):
        yield from _unmet(ours)
    for name in modules:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None or Path(found.origin).is_relative_to(folder):
            yield f"{name} is not in the base image"
    for name in OURS:
        try:
            importlib.import_module(name)  # noqa: TID251 (to see whether it can be)
        except ImportError as error:
            yield (
                f"cannot import {name} ({error}); compiled packages are for the Python of PYTHON_IMAGE, and this is "
                f"{sys.version.split()[0]}"
            )


def _unmet(ours: Distribution) -> Iterator[str]:
    if _version(ours.name) != ours.version:
        return  # The image has its own, whose needs are the image's affair.
    for text in ours.requires or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT:
            continue
        there = _version(name)
        if there is None or not requirement.specifier.contains(there, prereleases=True):
            yield f"{ours.name} {ours.version} needs {requirement}; there is {there or 'none'}"


def _version(name: str) -> str | None:
    """Of the distribution that an import would get: the first on the path."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit("\n".join(f"fits.py: {line}" for line in misfits(Path(sys.argv[1]), sys.argv[2:])) or None)
