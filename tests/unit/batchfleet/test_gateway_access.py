"""Who is let in by the gateway, and who goes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchfleet.gateway.api_keys import KeyRing, new_key, read_keys
from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.fleet_questions import priority_for
from batchfleet.gateway.gate import check_local
from batchfleet.gateway.options import GatewayOptions
from batchfleet.gateway.server import check_exposure
from batchfleet.settings.schema import Settings
from wire.errors import UsageError


def test_a_new_key_is_let_in_under_its_name_and_no_other_is() -> None:
    """What is printed works, two keys of one name are one owner, and the file holds no key."""
    (key, line), (other, second), (stranger, _) = new_key("lab"), new_key("lab"), new_key("lab")
    ring = read_keys(["# people", "", line, second], "keys")

    assert [ring.owner_of(given) for given in (key, other, stranger, "", line)] == ["lab", "lab", None, None, None]
    assert key not in line


def test_a_line_that_is_no_hash_is_an_error_that_does_not_repeat_it() -> None:
    """It may be a key that somebody wrote down as it is."""
    with pytest.raises(UsageError, match="keys, line 2") as caught:
        read_keys(["", "lab sk-secret"], "keys")

    assert "secret" not in str(caught.value)


def test_without_keys_it_is_for_this_machine_only(tmp_path: Path) -> None:
    """It refuses to listen elsewhere, and what a web page makes a browser send."""
    check_exposure(GatewayOptions(host="::1", port=0, data_folder=tmp_path, settings=Settings()))
    with pytest.raises(UsageError, match="needs keys"):
        check_exposure(GatewayOptions(host="0.0.0.0", port=0, data_folder=tmp_path, settings=Settings()))  # noqa: S104 (refused)
    ring = KeyRing((("lab", b"x"),))
    check_exposure(GatewayOptions(host="0.0.0.0", port=0, data_folder=tmp_path, settings=Settings(), keys=ring))  # noqa: S104

    check_local({"host": "localhost:80", "origin": "http://localhost:80"})
    for headers in (
        {"host": "rebound.example:80"},
        {"host": "localhost:80", "origin": "https://page.example"},
        {"host": "localhost:80", "origin": "null"},
        {"host": "localhost:80", "sec-fetch-site": "cross-site"},
    ):
        with pytest.raises(ApiError):
            check_local(headers)


def test_online_questions_go_first_and_leave_batches_their_share(tmp_path: Path) -> None:
    """Up to their share of the capacity, and always one; the rest takes turns with the batches."""
    options = GatewayOptions(host="::1", port=0, data_folder=tmp_path, settings=Settings(), online_share=0.75)

    assert [priority_for(in_flight, 8, options) for in_flight in (0, 5, 6, 500)] == [7, 7, 0, 0]
    assert [priority_for(in_flight, 0, options) for in_flight in (0, 1)] == [7, 0]
