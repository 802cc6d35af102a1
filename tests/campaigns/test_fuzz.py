"""The fuzz campaign in short (row D25 of the fault matrix), and whether it would notice what it is there to notice."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from plusx.images.decode import Undecodable, decode
from plusx.images.sniff import IMAGES, sniff
from tests.images.hostile import HOSTILE

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"
TRIALS = 600


@pytest.fixture(scope="module")
def fuzzing() -> Iterator[Any]:
    """The modules, importable as they are when fuzz.py runs as a script."""
    before = list(sys.path)
    sys.path.insert(0, str(CAMPAIGNS))
    try:
        import fuzz
        import fuzz_mutations
        import fuzz_pictures

        yield SimpleNamespace(fuzz=fuzz, mutations=fuzz_mutations, pictures=fuzz_pictures)
    finally:
        sys.path[:] = before


def test_every_picture_is_read_before_it_is_damaged(fuzzing: Any) -> None:
    drawn = fuzzing.pictures.pictures()
    for name, data in drawn.items():
        assert sniff(data) == name.split()[0], name
        shown = np.asarray(decode(data))
        assert np.ptp(shown) > 40, f"{name} is blank"
    pytest.importorskip("pi_heif")
    assert {sniff(data) for data in drawn.values()} == IMAGES
    assert len(drawn) > 60


def test_damaged_pictures_cost_nothing_but_themselves(fuzzing: Any) -> None:
    """D25: some hundreds of the hundred thousand."""
    totals = fuzzing.fuzz.campaign(seed=1, first=0, trials=TRIALS)
    assert totals.broken == []
    assert totals.deaths == []
    assert totals.trials == sum(totals.answers.values()) == TRIALS
    assert set(totals.formats) == {name.split()[0] for name in fuzzing.pictures.pictures()}
    assert totals.answers["pixels"] > TRIALS / 10, "a fuzzer whose files are all refused tests nothing but headers"
    assert totals.answers["pixels"] < TRIALS * 0.9
    assert "600 pictures in" in "\n".join(fuzzing.fuzz.table(totals))


def test_a_trial_is_the_same_whenever_it_is_run(fuzzing: Any) -> None:
    drawn = fuzzing.pictures.pictures()
    mutants = [fuzzing.mutations.mutated(7, trial, drawn) for trial in range(300)]
    drawn_again = fuzzing.pictures.pictures()
    again = [fuzzing.mutations.mutated(7, trial, drawn_again) for trial in range(300)]
    assert [trial for trial in range(300) if mutants[trial] != again[trial]] == []
    others = [fuzzing.mutations.mutated(8, trial, drawn) for trial in range(300)]
    assert sum(mutants[trial] == others[trial] for trial in range(300)) < 15
    used = Counter(kind for mutant in mutants for kind in mutant.mutations)
    assert set(used) == {*fuzzing.mutations.MUTATIONS, "checksums"}
    assert sum(mutant.data == drawn[mutant.picture] for mutant in mutants) < 15


def test_lengths_are_found_in_every_format(fuzzing: Any) -> None:
    drawn = fuzzing.pictures.pictures()
    for name, data in drawn.items():
        found = fuzzing.mutations.fields(bytearray(data))
        assert len(found) >= 3, name
        assert all(offset + size <= len(data) for offset, size, _ in found), name


def test_a_png_with_new_checksums_is_the_same_png(fuzzing: Any) -> None:
    data = bytearray(fuzzing.pictures.pictures()["PNG texts"])
    whole = bytes(data)
    data[29] ^= 255
    with pytest.raises(Undecodable):
        decode(bytes(data))
    assert fuzzing.mutations.with_checksums(data) == whole


def test_a_process_that_dies_is_counted_with_its_trial(fuzzing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """D25, the control: a decoder that ends at one picture and spins at another."""
    dying, spinning = b"DIE", b"SPIN"
    real = fuzzing.fuzz.mutated

    def hostile(seed: int, trial: int, kinds: Any) -> Any:
        mutant = real(seed, trial, kinds)
        data = {3: dying, 6: spinning}.get(trial, mutant.data)
        return fuzzing.mutations.Mutant(mutant.picture, mutant.mutations, data)

    monkeypatch.setattr(fuzzing.fuzz, "mutated", hostile)
    monkeypatch.setattr(fuzzing.fuzz, "SECONDS", 2.0)
    totals = fuzzing.fuzz.campaign(seed=1, first=0, trials=10, command=HOSTILE)
    assert (totals.deaths, totals.slow) == ([3], [6])
    assert totals.broken == ["slower than five seconds: trials 6 of seed 1"]
    assert totals.trials == 10


def test_a_process_that_takes_too_much_memory_is_counted(fuzzing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """D25, the control."""
    monkeypatch.setattr(fuzzing.fuzz, "MEMORY", 1_000_000)
    monkeypatch.setattr(fuzzing.fuzz, "GROWTH", -1)
    totals = fuzzing.fuzz.campaign(seed=1, first=0, trials=3)
    if totals.memory == 0:
        pytest.skip("this system does not tell how much memory a process used")
    assert totals.heavy == [0, 1, 2]
    assert len(totals.broken) == 2


def test_the_command_line_keeps_a_picture_and_adds_a_line(
    fuzzing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, out = tmp_path / "kept.bin", tmp_path / "totals.jsonl"
    monkeypatch.setattr(fuzzing.fuzz, "_most_of_the_ended", lambda: 0)  # of all processes that any test started
    given = ["--seed", "3", "--from", "17", "--trials", "1", "--keep", str(kept), "--out", str(out)]
    assert fuzzing.fuzz.main(given) == 0
    mutant = fuzzing.mutations.mutated(3, 17, fuzzing.pictures.pictures())
    assert kept.read_bytes() == mutant.data
    assert capsys.readouterr().out.startswith(f"trial 17: {mutant.picture}, ")
    assert '"trials": 1' in out.read_text()
