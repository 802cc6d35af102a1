"""T22, T23, T24: a checkpoint that was cut or has a flipped bit is never used, and named; nor is such a model file."""

from __future__ import annotations

from pathlib import Path

import corruption


def test_no_cut_and_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path: Path) -> None:
    """The short form of `campaigns/corruption.py`: every cut, every bit of the small files, 300 of all."""
    totals = corruption.campaign(300, 1, tmp_path)
    assert totals.broken == []
    assert totals.cuts == 3 * 64
    assert totals.flips > 3000
    assert totals.both_damaged == 9
    assert totals.resumed == 15
    assert totals.model_flips == 300


def test_without_the_hashes_damage_goes_unnoticed(tmp_path: Path) -> None:
    """The negative control."""
    totals = corruption.campaign(30, 1, tmp_path, control=True)
    models = [told for told in totals.broken if told.startswith("bit ")]
    assert 0 < len(models) < totals.model_flips == 30  # those in its header show by themselves
    resumed = totals.resumed - 3  # a state.json that is no JSON shows by itself, too
    assert len(totals.broken) == totals.cuts + totals.flips + totals.both_damaged + resumed + len(models)
