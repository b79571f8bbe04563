"""Which images a worker may get for its questions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from batchfleet.settings.sections.section import MIB, Section

Folder = Annotated[str, StringConstraints(pattern=r"^/", max_length=4096)]


class ImageSettings(Section):
    """Which images a worker may get that chat messages name (docs/engines.md), and how much of them."""

    folders: list[Folder] = Field(
        default=[], max_length=64, description="Folders from which file: addresses may name images; begin with /."
    )
    https: bool = Field(default=True, description="Whether images may come from https: addresses.")
    http: bool = Field(default=False, description="Whether images may come from http: addresses.")
    private_addresses: bool = Field(
        default=False, description="true: also from this host and its network, not only from public addresses."
    )
    max_images: int = Field(default=16, ge=0, le=1000, description="Most images of a question.")
    max_bytes: int = Field(
        default=20 * MIB, ge=1, le=1024 * MIB, description="Most bytes of a question's images together."
    )
    max_pixels: int = Field(default=50_000_000, ge=1, le=1_000_000_000, description="Most pixels of an image.")
    timeout_s: float = Field(
        default=20.0, gt=0, le=300, description="Longest that a try to fetch an image may take, in seconds."
    )
    tries: int = Field(default=3, ge=1, le=20, description="Most tries of an image whose server fails.")
    max_redirects: int = Field(default=3, ge=0, le=20, description="Most redirects on the way to an image.")
    max_fetches: int = Field(default=16, ge=1, le=1000, description="Most images that a worker fetches at once.")
