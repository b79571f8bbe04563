"""The folder in which a long-running fleet keeps its state is this user's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from batchfleet.supervisor.state_folder import held
from wire.errors import UsageError


def test_a_lock_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    """What it points to stays as it is."""
    (tmp_path / "precious").write_text("mine")
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "lock").symlink_to(tmp_path / "precious")

    with pytest.raises(UsageError, match="cannot be used"), held(folder, for_socket=False):
        pass

    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "redis.log"])
def test_links_of_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Redis, and each program of the fleet, would write through them."""
    (tmp_path / "real").mkdir()
    folder = tmp_path / "real"
    if name:
        (folder / name).symlink_to(tmp_path / "elsewhere")
    else:
        folder = tmp_path / "link"
        folder.symlink_to(tmp_path / "real")

    with held(folder, for_socket=False):
        pass  # Our own links are our affair.
    us = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: us + 1)
    with pytest.raises(UsageError, match="a link that another user made"), held(folder, for_socket=False):
        pass
