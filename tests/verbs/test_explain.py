"""`explain` as its user runs it: picture, words, neighbours, the test over many photos, and mistakes."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import plusx
import plusx.explain.cam
from plusx.cli.run import run
from plusx.verbs import neighbours
from plusx.verbs.sanity import maps_tested
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS, fill


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two kinds, and a run trained on them."""
    world = tmp_path_factory.mktemp("world")
    fill(world / "stripes", {"lying": 30, "standing": 30})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(world / "cache"))
        train([str(world / "stripes")], Wish(flags=QUICK | {"epochs": 12}, sets=SETS, out=world / "run"))
    return world


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_photo_is_explained_with_a_picture_and_the_nearest_training_photos(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = world / "stripes" / "lying" / "3.jpg"
    before = photo.read_bytes()
    assert run(["explain", str(world / "run"), str(photo), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {
        *("path", "label", "probability", "probabilities", "answer", "class", "method", "log_odds", "where"),
        *("sanity", "neighbours", "remark", "picture"),
    } | (set(told) & {"novelty"})
    assert told["class"] == told["label"] == "lying"
    assert told["method"] == "cam"
    assert told["picture"] == "3-explained.png"
    assert told["remark"] is None
    assert 0 < told["where"]["area"] < 1
    assert set(told["sanity"]) == {"deletion", "rank_correlation", "similarity", "passed", "warnings"}
    assert len(told["neighbours"]) == 5
    assert [n["cosine"] for n in told["neighbours"]] == sorted((n["cosine"] for n in told["neighbours"]), reverse=True)
    assert hashlib.sha256(before).hexdigest() not in {n["sha256"] for n in told["neighbours"]}
    with Image.open(here / "3-explained.png") as picture:
        assert picture.format == "PNG"
        assert picture.height > 480 + neighbours.SHOWN * 20
    assert photo.read_bytes() == before


def test_what_is_told_to_people(world: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, model = str(world / "stripes" / "standing" / "3.jpg"), str(world / "run" / "model.safetensors")
    assert run(["explain", model, photo, "--class", "lying", "--method", "occlusion", "--out", "why.png"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == photo
    assert lines[1].startswith("standing: standing ")
    assert lines[2].startswith("evidence for lying (occlusion): ")
    assert lines[-1] == "picture: why.png"
    assert "The nearest training photos are in the run folder; name it in place of the model file to see them." in err
    assert (
        err.splitlines()[-1] == f"Next: {shlex.join(['plusx', 'explain', model, str(Path(photo).parent)])} --sanity 200"
    )
    assert run(["explain", model, photo, "--out", "why.png", "-q"]) == 0  # it replaces what --out names
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (
            ["PHOTO", "--class", "lyin"],
            2,
            "The model knows no class 'lyin'; it knows lying, standing. Did you mean lyi",
        ),
        (["nothing.jpg"], 3, "nothing.jpg cannot be used: "),
        (["FOLDER"], 2, "is a folder, and explain takes one photo; name a photo in it, or add --sanity 200"),
        (["PHOTO", "--out", "why.jpg"], 2, "--out why.jpg should end in .png: the explanation is a PNG."),
        (["PHOTO", "--out", "PHOTO.png"], 2, "would overwrite what is read"),
        (["PHOTO", "--method", "lime"], 2, "--method"),
        (["FOLDER", "--sanity", "3"], 2, "--sanity is 3 and must be at least 10 photos."),
        (["FOLDER", "--sanity", "20", "--out", "x.png"], 2, "--out is for one photo, and --sanity tests many"),
        (["PHOTO", "--sanity", "20"], 3, "holds 1 photos that can be read, and testing maps needs at least 10"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    flags: list[str], code: int, sentence: str, world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = here.parent / "photo.png"
    Image.new("RGB", (40, 40)).save(photo)
    stand_ins = {"PHOTO": str(photo), "PHOTO.png": str(photo), "FOLDER": str(world / "stripes")}
    assert run(["explain", str(world / "run"), *(stand_ins.get(flag, flag) for flag in flags)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("plusx: ")
    assert sentence in err
    assert not list(here.iterdir())


def test_a_picture_that_is_there_already_stays(world: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "3-explained.png").write_bytes(b"mine")
    assert run(["explain", str(world / "run"), str(world / "stripes" / "lying" / "3.jpg")]) == 2
    assert "3-explained.png exists already; name the picture to write with --out" in capsys.readouterr().err
    assert (here / "3-explained.png").read_bytes() == b"mine"


def test_maps_of_many_photos_are_tested_and_one_that_cannot_be_read_is_named(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(here / "stripes", {"lying": 8, "standing": 8}, first=90)
    (folder / "lying" / "bad.jpg").write_bytes(b"no photo")
    assert run(["explain", str(world / "run"), str(folder), "--sanity", "17", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["n"] == len(told["photos"]) == 16
    assert told["skipped"] == [str(folder / "lying" / "bad.jpg")]
    for name in ("marked", "random", "least", "elsewhere"):
        low, high = told["deletion"][name]["ci95"]
        assert low <= told["deletion"][name]["mean"] <= high
    assert told["deletion"]["marked"]["mean"] < told["deletion"]["least"]["mean"]
    assert told["passed"] == (not told["warnings"])
    again = maps_tested(world / "run", folder, 17).to_json()
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in told.items() if k != "seconds"}


def test_one_photo_has_the_same_areas_alone_and_among_many(world: Path) -> None:
    many = maps_tested(world / "run", world / "stripes" / "lying", 10)
    alone = plusx.explain(world / "run", many.names[4])
    assert alone.sanity.deletion.marked[0] == pytest.approx(many.tests.deletion.marked[4], abs=1e-3)
    assert alone.sanity.deletion.random[0] == pytest.approx(many.tests.deletion.random[4], abs=1e-3)


def test_plusx_explain_is_the_verb_though_the_room_has_that_name() -> None:
    assert callable(plusx.explain)
    assert plusx.explain.__module__ == "plusx.verbs.explain"


def test_neighbours_are_named_where_the_photos_are_gone_and_damage_is_told(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, copy = world / "stripes" / "lying" / "3.jpg", shutil.copytree(world / "run", tmp_path / "copy")
    (copy / "run.json").write_text('{"data": ["/nowhere/at/all"]}')
    explained = plusx.explain(copy, photo)
    assert len(explained.near) == 5
    assert explained.remark is not None
    assert "have moved or changed" in explained.remark
    (copy / neighbours.FILE).write_bytes((copy / neighbours.FILE).read_bytes()[:-9])
    assert run(["explain", str(copy), str(photo), "--out", str(tmp_path / "x.png")]) == 4
    assert "neighbours.safetensors is damaged: " in capsys.readouterr().err
    (copy / neighbours.FILE).unlink()
    assert plusx.explain(copy, photo).remark == "This run remembers no training photos; runs trained from now on do."


def test_the_run_folder_remembers_training_photos_only_as_unit_vectors_of_two_bytes(world: Path) -> None:
    from plusx.data.split import read_split_csv

    kept = neighbours.read(world / "run")
    assert kept is not None
    trained = {row.path for row in read_split_csv(world / "run" / "split.csv") if row.split == "train"}
    assert set(kept.names) == trained
    np.testing.assert_allclose(np.linalg.norm(kept.features.astype(float), axis=1), 1, atol=2e-3)
    raw: Any = safetensors.numpy.load((world / "run" / neighbours.FILE).read_bytes())
    assert raw["features"].dtype == np.float16
    assert all(name.startswith(label) for name, label in zip(kept.names, kept.labels, strict=True))


def test_as_many_of_every_class_are_remembered_as_there_are() -> None:
    labels = np.array([0] * 900 + [1] * 30 + [2] * 400)
    chosen = neighbours.balanced(labels, seed=0, most=300)
    assert np.bincount(labels[chosen]).tolist() == [135, 30, 135]
    assert len(set(chosen.tolist())) == 300
    assert neighbours.balanced(labels, seed=1, most=300).tolist() != chosen.tolist()
    assert neighbours.balanced(labels, seed=0, most=5_000).tolist() == list(range(len(labels)))
