"""Tests of difference, against SciPy's and against counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, t

from plusx.trust.significance import discordant, holm, mcnemar, mean_and_spread, welch


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 3), (2, 9), (40, 15), (120, 121), (0, 12)])
def test_mcnemar_is_the_exact_binomial_test_on_discordant_photos(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second, 0.5).pvalue, rel=1e-12)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_answers_that_never_differ_is_one() -> None:
    assert mcnemar(0, 0) == 1.0


def test_mcnemar_is_what_counting_all_coin_throws_gives() -> None:
    throws = [sum(heads) for heads in itertools.product((0, 1), repeat=10)]
    as_far = sum(abs(heads - 5) >= 3 for heads in throws) / len(throws)
    assert mcnemar(2, 8) == pytest.approx(as_far, rel=1e-12)


def test_mcnemar_finds_a_difference_by_chance_in_at_most_five_of_a_hundred() -> None:
    random = np.random.default_rng(0)
    right = random.random((2, 2000, 300)) < 0.9
    found = [mcnemar(*discordant(one, two)) < 0.05 for one, two in zip(*right, strict=True)]
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 2000)


def test_discordant_photos_are_counted_by_who_was_right() -> None:
    first = np.array([True, True, False, False, True])
    second = np.array([True, False, True, False, False])
    assert discordant(first, second) == (2, 1)


def test_welch_is_its_own_formula() -> None:
    a, b = [0.93, 0.94, 0.95], [0.96, 0.955, 0.965, 0.97]
    va, vb = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 4
    freedom = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 3)
    expected = 2 * t.sf(abs(np.mean(a) - np.mean(b)) / np.sqrt(va + vb), freedom)
    assert welch(a, b) == pytest.approx(expected, rel=1e-9)
    assert welch([0.9, 0.9], [0.95, 0.95]) == 1.0


def test_holm_multiplies_the_smallest_by_how_many_there_are_and_never_changes_their_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_single_value_has_no_spread() -> None:
    assert mean_and_spread([0.5]) == (0.5, None)
    assert mean_and_spread([0.4, 0.6]) == pytest.approx((0.5, np.sqrt(0.02)))
