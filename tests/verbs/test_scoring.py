"""Scoring at scale without Ray: parts that are whole or not there, second starts, what is refused, and the count."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet as pq
import pytest

from campaigns.operations import BEFORE, Operation, watched
from plusx.cli.run import run as cli
from plusx.data import remote, unpacked
from plusx.errors import DataError, DiskError, Interrupted, RunError, UsageError
from plusx.images.source import Source
from plusx.verbs import blocks, scorer, scoring
from plusx.verbs.blocks import Block, blocks_of
from plusx.verbs.scoring import Progress, Scoring, score
from tests.data.s3 import Server, Wire
from tests.verbs import scored


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and photos, which nothing changes."""
    folder = tmp_path_factory.mktemp("scored")
    scored.model(folder / "model.safetensors")
    scored.world(folder / "photos")
    return folder


@pytest.fixture
def asked(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scoring:
    """Three archives and two blocks of loose photos."""
    monkeypatch.setattr(blocks, "LOOSE", 4)
    monkeypatch.setattr(scorer, "usable_cpus", lambda: 0)  # decoded here: processes take a second to start
    return Scoring(made / "model.safetensors", scored.paths(made / "photos"), tmp_path / "parts")


def parts(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("part-*")}


def stopping(after: int) -> Callable[[Progress], None]:
    def hear(progress: Progress) -> None:
        if progress.done == after:
            raise KeyboardInterrupt

    return hear


def test_a_folder_of_parts_holds_the_rows_of_predict_and_is_read_as_one_table(
    asked: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "usable_cpus", lambda: 2)
    monkeypatch.setattr(scorer, "HELD", 0)  # no photo is decoded more than a batch ahead
    totals = score(asked := replace(asked, batch_size=4))
    assert (totals.photos, totals.answered, totals.errors, totals.blocks, totals.written) == (22, 19, 3, 5, 5)
    predicted = scored.expected(asked.model, asked.paths)
    scored.assert_as_predicted(asked.out, predicted)
    table = pandas.read_parquet(asked.out)
    assert list(table.columns) == [
        *("path", "label", "probability", "probabilities", "answer", "error_code", "error_message")
    ]
    assert len(table) == 22
    assert any("caf\\udce9.jpg" in path for path in table.path)
    ordered = [scored.named(row) for row in predicted]
    for block in blocks_of(asked.paths):
        found = pq.read_table(asked.out / f"part-{block.name}.parquet")
        names = found.column("path").to_pylist()
        assert names == sorted(names, key=ordered.index), "in the order of predict"
        assert json.loads(found.schema.metadata[b"classes"]) == list(scored.CLASSES)
    kept = json.loads((asked.out / "_manifest.json").read_text())["totals"]
    assert (kept["photos"], kept["errors"], kept["blocks"]) == (22, 3, 5)


def test_a_second_start_does_what_is_missing_and_nothing_else(
    asked: Scoring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(whole := replace(asked, out=tmp_path / "whole"))
    with pytest.raises(Interrupted) as caught:
        score(asked, on_progress=stopping(2))
    assert caught.value.message.startswith("Stopped with 2 of 5 blocks done. Continue with: plusx predict ")
    assert caught.value.message.endswith(f"--parquet --out {asked.out}")
    assert caught.value.exit_code == 75
    before = {path.name: path.stat().st_mtime_ns for path in asked.out.glob("part-*")}
    assert len(before) == 2
    assert score(asked).written == 3
    after = {path.name: path.stat().st_mtime_ns for path in asked.out.glob("part-*")}
    assert {name: after[name] for name in before} == before
    assert parts(asked.out) == parts(whole.out)
    monkeypatch.delattr(scoring, "Scorer")  # a third loads no model
    assert score(asked).written == 0


def test_an_end_by_sigkill_leaves_nothing_that_is_taken_for_a_part(asked: Scoring) -> None:
    with pytest.raises(Interrupted):
        score(asked, on_progress=stopping(1))
    (asked.out / "tmp-0123").write_bytes(b"half a part")
    (asked.out / "tmp-tried-0123").write_text("1\n")
    score(asked)
    assert not list(asked.out.glob("tmp-*"))


@pytest.mark.parametrize("damage", ["cut", "footer", "emptied", "removed", "another"])
def test_a_damaged_part_is_made_again(damage: str, asked: Scoring) -> None:
    score(asked)
    good = parts(asked.out)
    path, other = sorted(asked.out.glob("part-*"))[:2]
    data = path.read_bytes()
    broken = {
        "cut": data[:-9],
        "footer": data[:-8] + b"\xff\xff" + data[-6:],
        "emptied": b"",
        "another": other.read_bytes(),
    }
    path.unlink() if damage == "removed" else path.write_bytes(broken[damage])
    assert score(asked).written == 1
    assert parts(asked.out) == good


def test_another_model_or_other_settings_are_refused_with_the_difference(asked: Scoring, tmp_path: Path) -> None:
    score(asked)
    good, other = parts(asked.out), scored.model(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(
        UsageError, match=r"holds parts of another scoring: model_sha256 was '\w{64}' and is now '\w{64}'"
    ):
        score(replace(asked, model=other))
    with pytest.raises(UsageError, match="precision was 'auto' and is now 'fp32'; batch_size was 64 and is now 8"):
        score(replace(asked, precision="fp32", batch_size=8))
    assert parts(asked.out) == good


def test_photos_may_come_and_none_may_go_or_change(asked: Scoring, made: Path, tmp_path: Path) -> None:
    tars, more = shutil.copytree(made / "photos", tmp_path / "copy"), tmp_path / "more.tar"
    asked = replace(asked, paths=(f"{tars}/*.tar",))
    score(asked)
    scored.shard(more, 50, 3)
    assert score(replace(asked, paths=(*asked.paths, str(more)))).written == 1
    with pytest.raises(
        UsageError, match=r"parts of photos that are no longer asked for, .*: \S+/more.tar. Give the same"
    ):
        score(asked)
    scored.shard(tars / "a.tar", 0, 20)
    with pytest.raises(UsageError, match=r"or are not as they were: \S+/a.tar. Give the same paths again"):
        score(replace(asked, paths=(*asked.paths, str(more))))


def test_an_archive_named_twice_and_one_in_a_folder_have_their_rows(asked: Scoring, made: Path) -> None:
    twice = blocks_of([made / "photos" / "a.tar", made / "photos" / "a.tar"])
    assert len({block.name for block in twice}) == 2
    inside = blocks_of([made / "photos"])
    assert [block.archive for block in inside] == [
        *(str(made / "photos" / name) for name in ("a.tar", "b.tar", "c.tar")),
        *(None, None),
    ]
    assert [Block.from_json(block.to_json()) for block in inside] == inside
    score(replace(asked, paths=(str(made / "photos"),)))
    scored.assert_as_predicted(asked.out, scored.expected(asked.model, (str(made / "photos"),)))


def test_whoever_scores_may_stand_in_another_folder(
    asked: Scoring, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made / "photos")
    found = blocks_of(["a.tar", "loose"])
    predicted = scored.expected(asked.model, ("a.tar", "loose"))
    monkeypatch.chdir(tmp_path)
    names = []
    for block in map(Block.from_json, [block.to_json() for block in found]):
        with block.open() as photos:
            assert all(Path(photo.source.file).is_file() for photo in photos)
            names += [photo.name for photo in photos]
    assert names == [row.path for row in predicted]
    assert names[0] == "a.tar!/00000.jpg"


def test_what_is_no_photo_or_is_not_there_is_a_row_with_an_error(asked: Scoring, tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes(b"x" * 700)
    gone = replace(asked, paths=(str(tmp_path / "cut.tar"), str(tmp_path / "gone.tar"), str(tmp_path / "gone.jpg")))
    totals = score(gone)
    assert (totals.photos, totals.errors) == (3, 3)
    scored.assert_as_predicted(gone.out, scored.expected(gone.model, gone.paths))


def test_nothing_to_score_is_said_so(asked: Scoring, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.tar").write_bytes(scored.archive({}))
    for path in ("empty", "empty.tar"):
        with pytest.raises(DataError, match=f"{path} holds no files to answer for; name photos, or a folder of them."):
            score(replace(asked, paths=(str(tmp_path / path),)))
    with pytest.raises(UsageError, match="predict needs at least one photo"):
        score(replace(asked, paths=()))


@pytest.mark.parametrize("reach", ["part", "manifest"])
def test_a_full_disk_ends_it_and_costs_the_block_in_hand(reach: str, asked: Scoring) -> None:
    """T20: the write of a part, and of what stands beside them."""

    def full(operation: Operation, moment: str) -> None:
        late = operation.number > (8 if reach == "part" else 3)
        if operation.name == "write" and moment == BEFORE and late:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    asked.out.mkdir()
    with watched(asked.out, full), pytest.raises(DiskError) as caught:
        score(asked)
    assert caught.value.exit_code == 5
    assert "No space left on device; free some space or choose another folder with --out." in caught.value.message
    assert "Continue with: plusx predict " in caught.value.message
    assert not list(asked.out.glob("tmp-*"))
    assert score(asked).photos == 22
    assert all(pq.read_metadata(path) for path in asked.out.glob("part-*"))


@pytest.mark.parametrize("fault", ["moved", "refused", "meanwhile", "loose"])
def test_what_is_not_there_for_a_moment_is_no_bad_photo(
    fault: str, asked: Scoring, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its block has no part, and the next start makes it."""
    copy = shutil.copytree(made / "photos", tmp_path / "copy")
    asked = replace(asked, paths=scored.paths(copy))
    victim = copy / ("loose" if fault == "loose" else "a.tar")

    def take_away(progress: Progress) -> None:
        if progress.photos >= (fault == "meanwhile") and victim.exists() and fault != "refused":
            victim.rename(tmp_path / "away")

    with monkeypatch.context() as patch:
        if fault == "refused":
            patch.setattr("plusx.data.tar._regular", refusing(errno.EIO))
        with pytest.raises(DataError, match=r"of 5 blocks could not be scored.* The first: ") as caught:
            score(asked, on_progress=take_away)
    assert caught.value.exit_code == 3
    told = (
        "cannot be read (Input/output error)" if fault == "refused" else "is not as it was when it was listed: it was"
    )
    assert told in caught.value.message
    if fault != "refused":
        (tmp_path / "away").rename(victim)
    assert score(asked).written == {"refused": 3, "loose": 2}.get(fault, 1)
    scored.assert_as_predicted(asked.out, scored.expected(asked.model, asked.paths))


def refusing(number: int) -> Callable[..., None]:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_an_archive_that_is_rewritten_with_as_many_bytes_is_another(asked: Scoring, made: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy2(made / "photos" / "a.tar", tmp_path / "a.tar"))
    score(asked := replace(asked, paths=(str(copy),)))
    copy.write_bytes(copy.read_bytes())
    with pytest.raises(
        UsageError, match=r"no longer asked for, or are not as they were: \S+/a.tar. Give the same paths"
    ):
        score(asked)


@pytest.mark.parametrize("good", [True, False])
def test_a_compressed_archive_is_let_go_with_its_block(good: bool, made: Path, tmp_path: Path) -> None:
    """Else as many as the cache holds are scored, and no more."""
    content = (made / "photos" / "a.tar").read_bytes()
    (folder := tmp_path / "packed").mkdir()
    (folder / "a.tar.gz").write_bytes(gzip.compress(content if good else content[:3000]))
    for path in (folder / "a.tar.gz", folder):
        (block,) = blocks_of([path])
        with block.open() as photos:
            assert len(photos) == (6 if good else 1)
            assert bool(unpacked._held) == good
        assert not unpacked._held


def test_no_more_results_wait_for_a_slow_photo_than_are_asked_for() -> None:
    """It is the first, and the pool would have all others done before."""
    waiting, sources = set[int](), scorer._Ahead([Source(str(number)) for number in range(100)], 8)

    def pool() -> Iterator[tuple[int, Any]]:
        rest = enumerate(sources)
        slow = next(rest)
        for place, source in rest:
            waiting.add(place)
            yield place, source
        assert waiting == set(range(1, 8))
        yield slow
        yield from rest

    answered = []
    for place, source in scorer._in_order(pool()):
        sources.done = place + 1
        answered.append(int(source.file))  # type: ignore[union-attr] # a source stands for its pixels
    assert answered == list(range(100))


def test_a_folder_that_was_begun_and_nothing_more_is_gone_on_with(asked: Scoring) -> None:
    """Killed before there was a manifest. What looks like that and has no lock may be anybody's."""
    asked.out.mkdir()
    (asked.out / "tmp-mine").touch()
    with pytest.raises(UsageError, match="holds files that predict did not write"):
        score(asked)
    assert (asked.out / "tmp-mine").exists()
    (asked.out / "_lock").touch()
    assert score(asked).photos == 22


def test_an_archive_that_comes_between_loose_photos_changes_no_block(
    asked: Scoring, made: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(made / "photos", tmp_path / "copy")
    score(asked := replace(asked, paths=(str(folder),)))
    scored.shard(folder / "loose" / "33.tar", 50, 3)
    assert score(asked).written == 1
    scored.assert_as_predicted(asked.out, scored.expected(asked.model, asked.paths))
    (folder / "loose" / "29.jpg").write_bytes(scored.jpeg(29))
    with pytest.raises(
        UsageError, match=r"paths again \(more archives may come, no more loose photos\), or name another"
    ):
        score(asked)


def test_a_photo_that_is_answered_twice_or_never_is_a_fault_that_shows(
    asked: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of "exactly one row per photo": what decodes gives one photo too few, or one twice."""
    real = scorer._in_order

    def twice(results: Any) -> Any:
        for place, result in real(results):
            yield from [(place, result)] * (1 + (place == 2))

    for wrong in (twice, lambda results: ((place, r) for place, r in real(results) if place != 1)):
        monkeypatch.setattr(scorer, "_in_order", wrong)
        with pytest.raises(
            RunError, match=r"blocks could not be scored.*A part should hold 6 rows, one for each photo"
        ):
            score(asked)
        assert not (asked.out / f"part-{blocks_of(asked.paths)[0].name}.parquet").exists()


def test_a_part_too_many_is_named(asked: Scoring) -> None:
    score(asked)
    shutil.copy(next(asked.out.glob("part-*")), asked.out / "part-by-hand.parquet")
    with pytest.raises(
        UsageError, match=r"parts that predict did not write there: part-by-hand.parquet. Move them away, since whoever"
    ):
        score(asked)
    (asked.out / "part-by-hand.parquet").unlink()
    assert score(asked).written == 0


def test_folders_that_cannot_be_used_are_refused(asked: Scoring, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(
        UsageError, match=r"file is a file, and a folder of parts is written; name a folder with --out."
    ):
        score(replace(asked, out=tmp_path / "file"))
    with pytest.raises(
        UsageError, match=r"other holds files that predict did not write; name a new or an empty folder"
    ):
        score(replace(asked, out=tmp_path / "other"))
    with pytest.raises(UsageError, match="would overwrite what is read"):
        score(replace(asked, out=Path(asked.paths[1])))
    score(asked)
    (asked.out / "_manifest.json").write_text("[]")
    with pytest.raises(DataError, match=r"_manifest.json is not the JSON that was written"):
        score(asked)


def test_a_model_that_is_replaced_meanwhile_is_noticed(asked: Scoring, tmp_path: Path) -> None:
    work = scorer.Work.of(asked.model, asked.out, "cpu", "auto", 8)
    changed = replace(work, model=str(scored.model(tmp_path / "other.safetensors", seed=1)))
    with pytest.raises(RunError, match="is another file for this process than for the one that began"):
        scorer.Scorer(changed)


def test_the_command_line_tells_totals_and_keeps_the_exit_codes(
    asked: Scoring, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["predict", str(asked.model), *asked.paths, "--parquet", "--out", str(asked.out)]
    assert cli([*words, "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["photos"], document["errors"], document["blocks"], document["written"]) == (22, 3, 5, 5)
    assert told.err == "3 of 22 could not be read; their rows say why.\n"
    assert cli([*words, "--strict", "-q"]) == 3
    assert capsys.readouterr().out == f"22 photos in 5 parts in {asked.out}, 0 of them new\n"
    assert cli([*words, "--csv"]) == 2
    assert capsys.readouterr().err == "plusx: --csv and --parquet ask for different outputs; give one of them.\n"
    assert cli(words[:-2]) == 2
    assert "--parquet and --engine ray write a folder of parts: name it with --out DIR." in capsys.readouterr().err


def test_without_pyarrow_a_sentence_names_what_to_install(asked: Scoring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs pyarrow, which is not installed: pip install 'plusx\[ray\]', or pip"):
        score(asked)


def test_what_lies_behind_urls_is_scored_under_its_own_name(
    asked: Scoring, server: Server, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {f"s/{n}.tar": scored.archive({f"{i}.jpg": scored.jpeg(10 * n + i) for i in range(3)}) for n in range(3)}
    server.put("photos", {**shards, "loose/7.jpg": scored.jpeg(7), "loose/8.jpg": b"no photo"})
    asked = replace(asked, paths=("s3://photos/s/*.tar", "s3://photos/loose/*.jpg"))
    real = remote.local

    def cut(url: str, sha256: str | None = None) -> Path:
        if url.endswith("1.tar"):
            raise DataError(f"{url} cannot be had.")
        return real(url, sha256)

    monkeypatch.setattr(remote, "local", cut)
    with pytest.raises(DataError) as caught:
        score(asked)
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith(
        "1 of 4 blocks could not be scored, the others are whole. The first: s3://photos/s/1.tar: "
        "s3://photos/s/1.tar cannot be had. The same command tries again: plusx predict "
    )
    monkeypatch.setattr(remote, "local", real)
    (block, *_), others = blocks_of(asked.paths), {f"s/{n}.tar": shards["s/2.tar"] for n in range(3)}
    assert score(asked).written == 1
    found = scored.rows(asked.out)
    assert set(found) == {
        *(f"s3://photos/s/{n}.tar!/{i}.jpg" for n in range(3) for i in range(3)),
        *("s3://photos/loose/7.jpg", "s3://photos/loose/8.jpg"),
    }
    assert [name for name, row in found.items() if row["error_code"]] == ["s3://photos/loose/8.jpg"]
    server.put("photos", others)
    remote.forget()  # as another process, which never saw what was there
    with pytest.raises(DataError, match=r"s3://photos/s/0.tar is not as it was when it was listed"), block.open():
        pass
