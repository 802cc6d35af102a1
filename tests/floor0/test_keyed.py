"""Randomness without state."""

from __future__ import annotations

import numpy as np
import pytest

from plusx import keyed

SAMPLES = np.arange(100_000)


def test_the_same_key_gives_the_same_numbers_in_any_order_and_company() -> None:
    whole = keyed.uniform(7, 3, SAMPLES[:100], "flip", 2)
    single = np.concatenate([keyed.uniform(7, 3, np.array([i]), "flip", 2) for i in reversed(range(100))])
    assert np.array_equal(whole, single[::-1])


def test_the_numbers_never_change_between_versions() -> None:
    words = keyed.words(1, 2, np.array([0, 1, 2**40]), "order", 2)
    assert [[hex(w) for w in row] for row in words.tolist()] == [
        ["0x5c9f77584ef4bdd", "0x390a8d79ef1454e7"],
        ["0xdd809a4251c6fa63", "0xb72344fb937e599a"],
        ["0xb6179be884167605", "0x2d293dcbbc8a2f84"],
    ]


@pytest.mark.parametrize("other", [(2, 0, "flip"), (1, 1, "flip"), (1, 0, "crop")])
def test_another_seed_epoch_or_purpose_gives_unrelated_numbers(other: tuple[int, int, str]) -> None:
    first = keyed.uniform(1, 0, SAMPLES, "flip")[:, 0]
    second = keyed.uniform(other[0], other[1], SAMPLES, other[2])[:, 0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_uniform_numbers_are_uniform() -> None:
    numbers = keyed.uniform(0, 0, SAMPLES, "test", 3)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    chi_squared = ((counts - 3000) ** 2 / 3000).sum()
    assert 50 < chi_squared < 160  # 99 degrees of freedom


def test_columns_and_neighbouring_samples_are_uncorrelated() -> None:
    numbers = keyed.uniform(0, 0, SAMPLES, "test", 2)
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.02
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.02


def test_a_permutation_holds_every_index_once_and_differs_between_epochs() -> None:
    first, second = keyed.permutation(0, 0, 1000), keyed.permutation(0, 1, 1000)
    assert np.array_equal(np.sort(first), np.arange(1000))
    assert (first != second).mean() > 0.98
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1


def test_generators_and_global_seeds_are_functions_of_their_key() -> None:
    assert keyed.generator(1, 2, 3, "mixup").random() == keyed.generator(1, 2, 3, "mixup").random()
    assert keyed.generator(1, 2, 3, "mixup").random() != keyed.generator(1, 2, 4, "mixup").random()
    assert keyed.global_seed(0, 5) == keyed.global_seed(0, 5) != keyed.global_seed(0, 6)
    assert keyed.global_seed(0, 5, rank=1) != keyed.global_seed(0, 5)
    assert (
        keyed.content_key(0, "ab", "split")
        == keyed.content_key(0, "ab", "split")
        != keyed.content_key(1, "ab", "split")
    )
