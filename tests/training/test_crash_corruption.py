"""T22, T23, T24: a checkpoint that was cut or has a flipped bit is never used, and named."""

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


def test_without_the_hashes_damage_goes_unnoticed(tmp_path: Path) -> None:
    """The negative control."""
    totals = corruption.campaign(10, 1, tmp_path, control=True)
    assert len(totals.broken) == totals.cuts + totals.flips + totals.both_damaged
