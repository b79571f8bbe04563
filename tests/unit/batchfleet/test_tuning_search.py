"""Finding good settings in few measurements, on engines made of formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from batchfleet.tuning.search import OutOfTimeError, Setting, Tried, grid, search


def an_engine(best_size: int, *, small_batches_cost: float = 0.0) -> Callable[[Setting], float]:
    """Faster with every sequence up to `best_size`, slower beyond; idle places if no more is in flight than runs."""

    def rate(setting: Setting) -> float:
        size = setting.max_num_seqs or 64
        kept = min(1.0, 0.9 + 0.2 * (setting.capacity / size - 1))
        beyond = max(0.0, size / best_size - 1)
        return (
            1000
            * min(size, best_size)
            / best_size
            * kept
            * (1 - 0.1 * beyond)
            * (1 - small_batches_cost / setting.batch_size)
        )

    return rate


@pytest.mark.parametrize("best_size", [16, 64, 128, 512])
def test_what_is_found_is_within_five_per_cent_of_the_whole_grid(best_size: int) -> None:
    """Upwards and downwards from where it starts, in a fraction of the measurements."""
    measure, tried = an_engine(best_size, small_batches_cost=0.5), Tried()
    start = Setting(64, 64, 16)

    found = search(start, measure, tried)

    everything = {setting: measure(setting) for setting in grid(start, found)}
    assert measure(found) >= 0.95 * max(everything.values())
    assert len(tried.rates) < len(everything) / 2


def test_of_equally_fast_settings_the_least_is_held_and_the_queue_is_spared() -> None:
    """The smallest capacity and the largest batch: neither costs anything here."""
    found = search(Setting(64, 192, 8), lambda _: 100.0, Tried())

    assert (found.capacity, found.batch_size) == (64, 32)


def test_when_time_is_up_the_best_so_far_counts() -> None:
    """Never worse than the settings that were there before."""
    measured = itertools.count()
    rates = {64: 100.0, 128: 150.0}

    def measure(setting: Setting) -> float:
        if next(measured) == 2:
            raise OutOfTimeError
        return rates[setting.max_num_seqs or 0]

    tried = Tried()
    found = search(Setting(64, 96, 16), measure, tried)

    assert found.max_num_seqs == 128
    assert not tried.complete


def test_a_size_that_does_not_boot_is_not_chosen() -> None:
    """It counts as 0, and smaller ones are still looked at."""
    found = search(Setting(64, 96, 16), lambda setting: 0.0 if (setting.max_num_seqs or 0) > 64 else 50.0, Tried())

    assert found.max_num_seqs == 64


def test_a_server_keeps_its_own_size() -> None:
    """Only how much it is given is ours to say."""
    tried = Tried()
    search(Setting(None, 96, 16), lambda setting: float(setting.capacity), tried)

    assert {setting.max_num_seqs for setting in tried.rates} == {None}
    assert len({setting.capacity for setting in tried.rates}) > 3


def test_the_whole_grid_reaches_as_far_as_the_search_went() -> None:
    """What was found far from where it began is compared with its neighbours, too."""
    start, found = Setting(64, 96, 16), Setting(1024, 1536, 32)

    sizes = {setting.max_num_seqs for setting in grid(start, found)}

    assert sizes == {32, 64, 128, 256, 1024}
