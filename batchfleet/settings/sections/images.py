"""Which images a worker may get for its questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from batchfleet.settings.sections.section import MIB, Contradiction, Section, at_most

Folder = Annotated[str, StringConstraints(pattern=r"^/", max_length=4096)]


class ImageSettings(Section):
    """Which images in chat messages a worker may fetch (docs/engines.md), and how much."""

    folders: list[Folder] = Field(default=[], max_length=64, description="Absolute folders for file: addresses.")
    https: bool = Field(default=True, description="Allow https: addresses.")
    http: bool = Field(default=False, description="Allow http: addresses.")
    private_addresses: bool = Field(
        default=False, description="Allow this host and its network, not only public addresses."
    )
    max_images: int = Field(default=16, ge=0, le=1000, description="Maximum images of a question.")
    max_bytes: int = Field(
        default=20 * MIB, ge=1, le=1024 * MIB, description="Maximum bytes of a question's images together."
    )
    max_held_bytes: int = Field(
        default=1024 * MIB,
        ge=1,
        le=1024 * 1024 * MIB,
        description="Maximum bytes of images that a worker holds for its questions in flight; others wait.",
    )
    max_pixels: int = Field(default=50_000_000, ge=1, le=1_000_000_000, description="Maximum pixels of an image.")
    timeout_s: float = Field(default=20.0, gt=0, le=300, description="Longest attempt to fetch an image, in seconds.")
    tries: int = Field(default=3, ge=1, le=20, description="Maximum attempts if its server fails.")
    max_redirects: int = Field(default=3, ge=0, le=20, description="Maximum redirects.")
    max_fetches: int = Field(default=16, ge=1, le=1000, description="Maximum images that a worker fetches at once.")

    def contradictions(self) -> Iterator[Contradiction]:
        yield from at_most(self, "max_bytes", "max_held_bytes")
