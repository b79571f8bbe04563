"""Why there is no image."""

from __future__ import annotations


class ImageError(Exception):
    """This image cannot be had: the text says why and what to do, without what may be secret.

    `may_pass`: another try may get it.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def too_large(max_bytes: int) -> ImageError:
    return ImageError(
        f"the question's images have more than {max_bytes} bytes (images.max_bytes); give smaller or fewer ones"
    )
