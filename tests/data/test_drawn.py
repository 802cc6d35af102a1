from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plusx.data.drawn import draw, write_set
from plusx.errors import DiskError

TRAIN, TEST = 1000, 400
SHRINKAGE = (1e-3, 1e-1)  # inverse strengths of the penalty that the linear models may choose from


@cache
def pictures() -> tuple[npt.NDArray[np.uint8], ...]:
    return tuple(np.asarray(draw(5, number // 2, number % 2)) for number in range(TRAIN + TEST))


def best_linear_accuracy(features: npt.NDArray[Any]) -> float:
    labels = np.arange(TRAIN + TEST) % 2
    scores = []
    for strength in SHRINKAGE:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        model.fit(features[:TRAIN], labels[:TRAIN])
        scores.append(float(model.score(features[TRAIN:], labels[TRAIN:])))
    return max(scores)


def histogram(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.histogram(picture[..., c], 16, (0, 256))[0] for c in range(3)])


def small(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BOX)).ravel()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


@pytest.mark.parametrize("label", [0, 1])
def test_the_same_seed_index_and_label_draw_the_same_bytes(label: int) -> None:
    assert draw(3, 7, label).tobytes() == draw(3, 7, label).tobytes()


def test_another_seed_index_or_label_draws_another_picture() -> None:
    drawn = [draw(*key).tobytes() for key in [(3, 7, 0), (4, 7, 0), (3, 8, 0), (3, 7, 1)]]
    assert len(set(drawn)) == 4


def test_a_picture_has_the_size_that_was_asked_for_and_three_channels() -> None:
    picture = draw(0, 0, 1, 64)
    assert (picture.size, picture.mode) == ((64, 64), "RGB")


def test_a_linear_model_on_colour_histograms_stays_below_75_percent() -> None:
    assert best_linear_accuracy(np.stack([histogram(picture) for picture in pictures()])) < 0.75


def test_a_linear_model_on_16x16_pixels_stays_below_75_percent() -> None:
    assert best_linear_accuracy(np.stack([small(picture) for picture in pictures()])) < 0.75


def test_a_set_has_balanced_classes_in_every_split_and_no_picture_twice(tmp_path: Path) -> None:
    write_set(tmp_path / "set", {"train": 3, "test": 2}, seed=1, size=32)
    files = files_below(tmp_path / "set")
    expected = [
        f"{split}/{c}/{i:04d}.jpg" for split, n in (("test", 2), ("train", 3)) for c in ("cat", "dog") for i in range(n)
    ]
    assert sorted(files) == sorted(expected)
    assert len(set(files.values())) == len(files)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_two_sets_of_one_seed_are_equal_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_set(tmp_path / name, {"train": 2}, seed=4, size=32)
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")


def test_a_set_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_set(tmp_path / "set", {"train": 2}, size=32)
    assert files_below(tmp_path / "set") == {}


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert (done, total) == (1, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "set", {"train": 2}, size=32, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match=r"^Could not write .*set: Not a directory"):
        write_set(tmp_path / "file" / "set", {"train": 1}, size=32)
