"""Training from shards: the same run as from DATA, memory that photos hardly cost, and disks that are full."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from plusx.cli.run import run as cli
from plusx.data.index import INDEX
from plusx.data.source import scan
from plusx.data.split import read_split_csv, write_split_csv
from plusx.errors import DataError
from plusx.training.events import Notice
from plusx.verbs import decoding, labelled
from plusx.verbs.session import Session, batches_of
from plusx.verbs.settle import wished
from plusx.verbs.shard import shard
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.data.shards import decoding_here
from tests.verbs.conftest import QUICK, SETS, draw
from tests.verbs.test_full_disk import file_system, fill

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BYTES = 150  # of memory for each photo, between listing the photos and the first batch


class _Stop(Exception):
    """A run is cut short."""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    decoding_here(monkeypatch)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def alike(data: Path) -> Path:
    """Photos of which one is saved anew, one copied, and one lies in both classes."""
    draw(0, 1).save(data / "lying" / "again.jpg", quality=60)
    for name, copy in (("lying/2.jpg", "lying/copy.jpg"), ("standing/4.jpg", "lying/stands.jpg")):
        (data / copy).write_bytes((data / name).read_bytes())
    return data


def test_shards_give_the_very_run_that_data_gives(alike: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split, order, notices and every bit of the model; with room in the cache, and where all is streamed."""
    shards, told, runs = tmp_path / "shards", dict[str, list[str]](), {}
    shard(alike, shards, size="30KB")
    for name, source, cache in (("data", alike, "20"), ("shards", shards, "20"), ("streamed", shards, "0")):
        monkeypatch.setenv("PLUSX_CACHE_GB", cache)
        wish, events = Wish(QUICK | {"epochs": 1}, SETS, out=tmp_path / f"run-{name}"), list[Any]()
        runs[name] = train([str(source)], wish, on_event=events.append).run
        told[name] = [event.text for event in events if isinstance(event, Notice)]
    for file in ("split.csv", "model.safetensors", "history.jsonl", "validation.csv"):
        assert len({sha256(run / file) for run in runs.values()}) == 1, file
    assert told["data"] == told["shards"] == [text for text in told["streamed"] if "cache" not in text]
    assert told["shards"][0].startswith("Photos that lie in more than one class: 1.")
    assert told["shards"][1].startswith("Near-duplicates: 2 photos in 1 groups")


def test_a_run_on_shards_is_resumed_and_evaluated(data: Path, tmp_path: Path) -> None:
    shards, out = tmp_path / "shards", tmp_path / "run"
    shard(data, shards, size="30KB")

    quick = QUICK | {"epochs": 2}

    def stop(event: Any) -> None:
        if getattr(event, "step", 0) == 5:
            raise _Stop

    with pytest.raises(_Stop):
        train([str(shards)], Wish(quick, SETS, out=out), on_event=stop)
    resumed = train([], Wish(out=out, resume=True))
    whole = train([str(shards)], Wish(quick, SETS, out=tmp_path / "whole"))
    assert sha256(resumed.model) == sha256(whole.model)
    assert cli(["evaluate", str(out), "--json"]) == 0
    (out / "model.safetensors").unlink()
    one = next(shards.glob("*.tar"))
    one.write_bytes(one.read_bytes() + b"x")
    with pytest.raises(DataError, match="is not the shard that its index was written with"):
        train([], Wish(out=out, resume=True))


def test_streaming_from_shards_reads_no_photo_before_the_first_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a photo that turns out bad later is the sentence that it always is."""
    shard(data, tmp_path / "shards")
    monkeypatch.setenv("PLUSX_CACHE_GB", "0")
    shards, config = tmp_path / "shards", wished(Wish(QUICK, SETS))
    one, heard = shards / "000000.tar", list[Any]()
    content = one.read_bytes()
    one.write_bytes(bytes(len(content)))
    session = Session((str(shards),), config, torch.device("cpu"), time.monotonic(), heard.append)
    photos = labelled.look([str(shards)], config)
    pixels = decoding.decode(session, photos, "", None)
    photos = decoding.kept_together(session, photos, pixels)
    assert not pixels.bad
    assert not [event for event in heard if hasattr(event, "done")]
    decoded = decoding.parted(session, photos, pixels)
    batches = batches_of(session, photos, decoded.training, lambda _: 32)
    with pytest.raises(DataError, match=r"\.jpg could be read when this run began and now cannot"):
        batches.batch(0)
    batches.close()
    one.write_bytes(content)
    batches = batches_of(session, photos, decoded.training, lambda _: 32)
    assert batches.batch(0).images.shape == (16, 3, 32, 32)
    batches.close()
    decoded.close()


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`benchmarks/simulated.py`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import simulated

    yield simulated
    sys.modules.pop("simulated")


def test_photos_of_shards_cost_no_object_each(
    data: Path, tmp_path: Path, simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the index to split.csv, the plan of an epoch and its first batch; and to its split when it is resumed."""
    monkeypatch.setenv("PLUSX_CACHE_GB", "0")
    monkeypatch.setattr("plusx.data.listing.Source", simulated.unchecked)
    count, config = 40_000, wished(Wish(QUICK, SETS))
    shards = simulated.simulated(tmp_path / "shards", data, count)
    session = Session((str(shards),), config, torch.device("cpu"), time.monotonic(), lambda _: None)
    few = simulated.simulated(tmp_path / "few", data, 1000)
    _prepared(session, few, tmp_path)  # imports what it needs
    tracemalloc.start()
    try:
        photos = _prepared(session, shards, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < BYTES * count
    finally:
        tracemalloc.stop()
    assert len(photos.rows("train")) == 36_000


def _prepared(session: Session, shards: Path, folder: Path) -> labelled.LabelledPhotos:
    photos = labelled.look([str(shards)], session.config)
    pixels = decoding.decode(session, photos, "", None)
    photos = decoding.kept_together(session, photos, pixels)
    decoded = decoding.parted(session, photos, pixels)
    write_split_csv(folder / "split.csv", labelled.split_rows(photos))
    batches = batches_of(session, photos, decoded.training, lambda _: 32)
    assert batches.batch(0).images.shape[0] == 16
    batches.close()
    decoded.close()
    return photos


def test_split_csv_is_written_row_by_row_and_read_back(data: Path, tmp_path: Path) -> None:
    shard(data, tmp_path / "shards")
    config = wished(Wish(QUICK, SETS))
    tables = []
    for source in (data, tmp_path / "shards"):
        photos = labelled.look([str(source)], config)
        write_split_csv(tmp_path / "split.csv", labelled.split_rows(photos))
        tables.append((tmp_path / "split.csv").read_bytes())
        assert [row.photo for row in read_split_csv(tmp_path / "split.csv")] == labelled.named(photos)
        assert (
            photos.fingerprint
            == hashlib.sha256(
                "\n".join(
                    sorted(f"{h} {label}" for h, label in zip(photos.hashes, photos._labels, strict=True))
                ).encode()
            ).hexdigest()
        )
    assert tables[0] == tables[1]


def test_a_full_disk_ends_with_exit_code_5_and_leaves_what_was_there(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with file_system(tmp_path / "small", "size=1m") as small:
        (small / "mine").write_bytes(bytes(200_000))
        monkeypatch.setattr("plusx.data.sharded.require_space", lambda *_: None)  # it fills up later
        (small / "ballast").write_bytes(bytes(750_000))
        assert cli(["shard", str(data), str(small / "out")]) == 5
        told = capsys.readouterr().err
        assert (
            f"Could not write {small}/out: No space left on device; free some space or choose another folder." in told
        )
        assert {p.name for p in small.iterdir()} == {"mine", "ballast"}
        monkeypatch.undo()
        fill(small)
        assert cli(["shard", str(data), str(small / "out")]) == 5
        (small / "ballast").unlink()
        assert cli(["shard", str(data), str(small / "out")]) == 0
        assert (small / "out" / INDEX).is_file()


def test_the_command_says_what_it_wrote(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["shard", str(data), str(tmp_path / "out"), "--size", "30KB"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'out'}: 60 photos of 2 classes in {_shards(tmp_path)} shards, 0.2 MB\n"
    assert told.err.endswith(f"Next: plusx train {tmp_path / 'out'}\n")
    assert cli(["shard", str(data), str(tmp_path / "json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["photos"], found["shards"], found["classes"]) == (60, 1, ["lying", "standing"])
    assert cli(["shard", str(data), str(tmp_path / "json")]) == 5
    assert cli(["shard", str(data), str(tmp_path / "new"), "--size", "many"]) == 2
    assert cli(["shard", str(tmp_path / "nothing"), str(tmp_path / "new")]) == 3
    assert len(scan(tmp_path / "json").photos) == 60


def _shards(folder: Path) -> int:
    return len(list((folder / "out").glob("*.tar")))
