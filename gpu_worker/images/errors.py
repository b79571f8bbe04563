"""Errors of fetching images."""

from __future__ import annotations


class ImageError(Exception):
    """The image cannot be fetched: the text says why and what to do, without secrets.

    `may_pass`: another try may get it.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class ImagesTooLargeError(ImageError):
    """This one, or all of the question's with it, have more bytes than they may."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"the question's images have more than {max_bytes} bytes (images.max_bytes); give smaller or fewer ones"
        )
