"""What tests of engines share."""

from tests.integration.forked_engines import forked_engines

__all__ = ["forked_engines"]
