"""Which images a worker may get for its questions, and how much of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Which images a worker may get, and how much of them. Times in seconds.

    Attributes:
        folders: Those from which `file:` may name images; nothing outside of them, whatever links say.
        https, http: Whether images may be fetched over each.
        private_addresses: Whether also from addresses that are not public: this host, this network, a cloud's metadata.
        max_images: Of one question.
        max_bytes: Of all images of one question together.
        max_held_bytes: Of all images that a worker holds for its questions in flight; at least `max_bytes`.
        max_pixels: Of one image, unpacked.
        timeout_s: Longest that one image may take, each try with its redirects.
        tries: Most tries of an image whose server fails.
        max_redirects: That one try follows.
        max_fetches: At once, of all questions of a worker.
        first_pause_s: Before the second try; doubled each time.
    """

    folders: tuple[str, ...] = ()
    https: bool = True
    http: bool = False
    private_addresses: bool = False
    max_images: int = 16
    max_bytes: int = 20 * 1024 * 1024
    max_held_bytes: int = 1024 * 1024 * 1024
    max_pixels: int = 50_000_000
    timeout_s: float = 20.0
    tries: int = 3
    max_redirects: int = 3
    max_fetches: int = 16
    first_pause_s: float = 0.5
