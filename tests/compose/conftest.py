"""A fleet in containers, for tests that need Docker.

`scripts/test-compose` runs them; a plain pytest leaves them out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.compose.composed import Composed

# Without Docker they could only fail, and with it they take minutes.
collect_ignore_glob = [] if os.environ.get("COMPOSE_TESTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def built() -> None:
    """The image, built from this checkout."""
    Composed("batchfleet-test", Path(tempfile.gettempdir())).compose("build", "batcher")


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know whether the test failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def fleet(built: None, request: pytest.FixtureRequest) -> Iterator[Composed]:  # noqa: ARG001 (built for its effect)
    """A fleet of this test alone, with nothing started yet, and gone after the test."""
    folder = Path(tempfile.mkdtemp(prefix="bf-compose-"))
    folder.chmod(0o755)
    with Composed("batchfleet-test", folder) as composed:
        yield composed
        if request.node.stash.get(FAILED, False):
            composed.show_logs()
    shutil.rmtree(folder)
