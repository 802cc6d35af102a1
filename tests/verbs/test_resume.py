"""The whole pipeline, stopped and gone on with: rows T01 to T09 in short; `campaigns/resume.py` has all of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plusx.errors import ModelError, UsageError
from plusx.training.checkpoint import found
from plusx.verbs.train import train
from plusx.verbs.wish import Wish

sys.path.insert(0, str(Path(__file__).parents[2] / "campaigns"))

import resuming

SETS = (*resuming.TRICKS, *resuming.MIXED)


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run by one decoding process, and what a kill would have left of it at every moment."""

    result: resuming.Fingerprint
    run: Path
    copies: Path


@pytest.fixture(scope="module", params=["cached", "streamed"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch, resuming.quiet(streamed=request.param == "streamed"):
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.delenv("PLUSX_PHOTOS", raising=False)
        result = resuming.moments(
            resuming.draw(folder / "photos"), folder / "run", folder / "copies", (*SETS, "precision=bf16"), 1
        )
        yield Whole(result, folder / "run", folder / "copies")


MOMENTS = {  # what is left, and by how many processes it is gone on with
    "killed-1": 2, "saved-3": 0, "saved-4": 1, "killed-5": 4, "validating-8": 0, "unsaved-8": 2, "killed-11": 1,
}  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_whole_pipeline_resumes_exactly_with_other_workers(moment: str, whole: Whole, tmp_path: Path) -> None:
    """T01, T02, T04 to T09: mixed photos, parts, an average in bf16, best weights, the end that a stall brings."""
    shutil.copytree(whole.copies / moment, tmp_path / "run")
    assert resuming.differences(whole.result, resuming.resumed(tmp_path / "run", MOMENTS[moment])) == []


def test_resumes_in_one_epoch_change_nothing(whole: Whole, tmp_path: Path) -> None:
    """T03, with the number of decoding processes changed each time."""
    run = tmp_path / "run"
    shutil.copytree(whole.copies / "saved-4", run)
    for step, workers in ((5, 2), (6, 0)):
        with pytest.raises(resuming.CutError):
            resuming.resumed(run, workers, resuming.cut(step))
        assert found(run / "checkpoints")[0].name == f"step-{step - 1:06d}"
    assert resuming.differences(whole.result, resuming.resumed(run, 1)) == []


def test_a_setting_that_changes_bits_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control of the tests above: augmentation that is drawn by another number than the step."""
    from plusx.data import augment

    real, calls = augment.draw, [0]

    def by_call(how: Any, seed: int, epoch: int, shown: Any, step: int) -> Any:
        calls[0] += 1
        return real(how, seed, epoch, shown, step + calls[0] // 8)

    with resuming.quiet():
        data = resuming.draw(tmp_path / "photos")
        monkeypatch.setattr(augment, "draw", by_call)
        expected = resuming.moments(data, tmp_path / "run", tmp_path / "copies", SETS, 0)
        assert resuming.differences(expected, resuming.resumed(tmp_path / "copies" / "saved-3", 0))


def test_what_changes_nothing_of_the_result_may_be_other_than_before_and_nothing_else(
    whole: Whole, tmp_path: Path
) -> None:
    shutil.copytree(whole.copies / "saved-3", tmp_path / "run")
    free = ("workers=0", "checkpoint_every=7", "checkpoint_seconds=30", "rank_seconds=60", "show_every_step=true")
    train([], Wish(sets=free, out=tmp_path / "run", resume=True))
    ours, theirs = ((run / "model.safetensors").read_bytes() for run in (tmp_path / "run", whole.run))
    assert ours == theirs, "the settings in the model file are those that the run was started with"
    shutil.copytree(whole.copies / "saved-3", tmp_path / "other")
    with pytest.raises(UsageError, match="cannot be resumed with other settings: seed was 1 and is now 2"):
        train([], Wish(sets=("workers=0", "seed=2"), out=tmp_path / "other", resume=True))


def test_a_checkpoint_of_a_run_on_other_classes_or_another_network_is_refused(whole: Whole, tmp_path: Path) -> None:
    """T25: somebody copied checkpoints from one run folder to another."""
    state = whole.copies / "saved-3" / "checkpoints" / "step-000003" / "state.json"
    for old, new, told in (
        ('"cat"', '"cow"', "of the classes, cow only there and cat only here"),
        ('"resnet8"', '"resnet10"', "network is resnet10 there and resnet8 here"),
        ('"width": 0.25', '"width": 0.5', "width is 0.5 there and 0.25 here"),
    ):
        run = tmp_path / new.strip('"').replace('": ', "-")
        shutil.copytree(whole.copies / "saved-3", run)
        shutil.rmtree(run / "checkpoints" / "step-000002")
        _rewrite(run / "checkpoints" / "step-000003", state.read_text().replace(old, new))
        with pytest.raises(ModelError) as caught:
            train([], Wish(out=run, resume=True))
        assert caught.value.exit_code == 4
        assert f"does not fit this run: {told}. Resume with" in caught.value.message


def _rewrite(checkpoint: Path, numbers: str) -> None:
    from plusx import durable

    files = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.name != durable.MANIFEST}
    durable.write_folder(checkpoint, files | {"state.json": numbers.encode()})
