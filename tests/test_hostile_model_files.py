"""M01: a model file is data. Whatever is in it, under whatever name, wherever plusx takes one, nothing of it runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import plusx
from plusx.cli.run import run as cli
from plusx.data import survey
from plusx.durable import MANIFEST
from plusx.errors import Error, ModelError
from plusx.lab.laboratory import Lab
from plusx.lab.network import Network
from plusx.run_folder import RunFolder
from plusx.verbs import hub, start
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.hostile_models import ENDINGS, VARIABLE, Hostile, corpus
from tests.verbs.conftest import QUICK, SETS, draw, fill

ROOT = Path(plusx.__file__).parents[1]


class Watch:
    """Hears of everything that is unpickled in this process: an audit hook stays for ever, so there is one."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.on = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """One event; `pickle.find_class` comes with a module and a name in it."""
        if self.on and event == "pickle.find_class":
            self.heard.append(f"{event} {arguments[:2]}")


WATCH = Watch()
sys.addaudithook(WATCH)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that no payload may touch; nor may one set the variable, nor anything be unpickled at all."""
    monkeypatch.delenv(VARIABLE, raising=False)
    WATCH.heard.clear()
    WATCH.on = True
    yield tmp_path / "canary"
    WATCH.on = False
    assert not (tmp_path / "canary").exists()
    assert VARIABLE not in os.environ
    assert WATCH.heard == []


def test_the_payloads_are_live_where_a_pickle_is_loaded(tmp_path: Path) -> None:
    """M01, the control: each one touches its canary when its format's own loader gets it, in another process."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.hostile_models", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    live = json.loads(done.stdout)
    assert len(live) >= 50
    assert {name: why for name, why in live.items() if why} == {}


def test_what_watches_would_hear_of_a_pickle(tmp_path: Path) -> None:
    """M01, the control of the tests below: loading one harmless pickle in this process is heard."""
    import pickle

    WATCH.heard.clear()
    WATCH.on = True
    pickle.loads(pickle.dumps(Path, 2))
    WATCH.on = False
    assert [event.split()[0] for event in WATCH.heard] == ["pickle.find_class"]


def named(item: Hostile, folder: Path, ending: str | None = None) -> Path:
    """The file on the disk."""
    ending = item.ending if ending is None else ending
    path = folder / (f"model.{ending}" if ending else "model")
    path.write_bytes(item.content)
    return path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 4) -> str:
    """The one sentence with which the command line ends."""
    assert cli(arguments) == code, arguments
    said = capsys.readouterr().err
    assert said.startswith("plusx: "), said
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    assert "fault of its own" not in said, said
    return said


def test_none_is_loaded_under_any_name(canary: Path, tmp_path: Path) -> None:
    """M01: every file of the corpus under every ending, as a model."""
    for item in corpus(canary):
        for ending in (*ENDINGS, item.ending):
            with pytest.raises(ModelError):
                plusx.load(named(item, tmp_path, ending))


def test_none_is_taken_as_weights_to_start_from(canary: Path, tmp_path: Path) -> None:
    """M01: every file of the corpus, as what `train --weights` reads."""
    taken = set()
    for item in corpus(canary):
        try:
            start.find(str(named(item, tmp_path)))
            taken.add(item.name)
        except ModelError:
            pass
    assert taken == {"a pickle as a tensor and as a text"}  # which is data, and fits no network


VERBS = ("predict", "evaluate", "explain", "export", "serve", "check", "train")


def command(verb: str, model: Path, data: Path, out: Path) -> list[str]:
    """A command line in which `verb` takes `model`."""
    photo = str(data / "lying" / "0.jpg")
    return {
        "predict": ["predict", str(model), photo],
        "evaluate": ["evaluate", str(model), str(data)],
        "explain": ["explain", str(model), photo, "--out", str(out / "why.png")],
        "export": ["export", str(model), "--photos", photo, "--out", str(out / "exported.onnx")],
        "serve": ["serve", str(model), "--port", "0"],
        "check": ["check", str(data), "--model", str(model), "-q"],
        "train": ["train", str(data), "--weights", str(model), "--out", str(out / "run"), "--epochs", "1", "-q"],
    }[verb]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen photos of two classes."""
    return fill(tmp_path_factory.mktemp("few") / "stripes", {"lying": 6, "standing": 6})


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("check", "train")])
def test_every_verb_refuses_every_one_in_a_sentence(
    verb: str, canary: Path, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """M01: the command line, with every file of the corpus under its usual ending."""
    for item in corpus(canary):
        code = 2 if verb == "export" and item.ending == "onnx" else 4  # an exported file is not exported again
        refused(command(verb, named(item, tmp_path), few, tmp_path), capsys, code)
    assert not (tmp_path / "why.png").exists()
    assert not (tmp_path / "exported.onnx").exists()


@pytest.mark.parametrize("verb", ["check", "train"])
def test_verbs_that_look_at_photos_first_refuse_them_as_well(
    verb: str, canary: Path, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """M01: one file of each loader, since every run of these reads the photos."""
    for item in {item.loader: item for item in corpus(canary)}.values():
        refused(command(verb, named(item, tmp_path), few, tmp_path), capsys)
        assert not (tmp_path / "run").exists(), "no run folder is made"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run that keeps its best weights, and its photos."""
    folder = tmp_path_factory.mktemp("trained")
    data = fill(folder / "stripes", {"lying": 30, "standing": 30})
    train([str(data)], Wish(QUICK, (*SETS, "keep=best"), out=folder / "run"))
    return folder / "run", data


@pytest.fixture
def forged(trained: tuple[Path, Path], tmp_path: Path) -> Callable[[Path, bytes], Path]:
    """A copy of the run in which one file has other bytes, and the manifest beside it, if there is one, says so."""

    def made(name: Path, content: bytes) -> Path:
        run = tmp_path / "forged"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(trained[0], run)
        (run / name).write_bytes(content)
        manifest = (run / name).parent / MANIFEST
        if manifest.exists():
            told = json.loads(manifest.read_text())
            sha256 = hashlib.sha256(content).hexdigest()
            told["files"][name.name] = {"size": len(content), "sha256": sha256}
            manifest.write_text(json.dumps(told))
        return run

    return made


def unfinished(run: Path) -> Path:
    """The same run, without its end."""
    for name in ("model.safetensors", "metrics.json"):
        (run / name).unlink()
    return run


def newest(run: Path, folder: str) -> Path:
    """The newest checkpoint, or the best weights, by its path within the run."""
    return sorted((run / folder).iterdir())[-1].relative_to(run)


def test_a_run_folder_with_a_forged_model_is_refused_by_every_verb(
    canary: Path,
    few: Path,
    forged: Callable[[Path, bytes], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """M01: `model.safetensors` of a run is a payload, and the run's own metrics.json knows its hash."""
    for item in {item.loader: item for item in corpus(canary)}.values():
        run = forged(Path("model.safetensors"), item.content)
        told = json.loads((run / "metrics.json").read_text())
        told["model_sha256"] = hashlib.sha256(item.content).hexdigest()
        (run / "metrics.json").write_text(json.dumps(told))
        for verb in VERBS:
            out = tmp_path / "out"
            out.mkdir(exist_ok=True)
            refused(command(verb, run, few, out), capsys)
        other = tmp_path / "other"
        if not other.exists():
            shutil.copytree(run, other)
        refused(["compare", str(run), str(other)], capsys)
        assert cli(["evaluate", str(run), "-q"]) == 4
        assert "Traceback" not in capsys.readouterr().err


def test_a_forged_checkpoint_is_refused_although_its_manifest_is_right(
    canary: Path, forged: Callable[[Path, bytes], Path], trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """M01, M03: `state.safetensors` is a payload, with a manifest that anybody can write."""
    place = newest(trained[0], "checkpoints") / "state.safetensors"
    for item in {item.loader: item for item in corpus(canary)}.values():
        run = unfinished(forged(place, item.content))
        assert cli(["train", "--resume", "--out", str(run), "-q"]) == 4
        said = capsys.readouterr().err
        assert "does not fit this run" in said
        assert said.count("\n") == 1
    for numbers in (b"[]", b"{}", b"[" * 100_000, b'{"format": 1}', b'{"format": 1, "step": "3"}', b"\x80\x02."):
        run = unfinished(forged(place.with_name("state.json"), numbers))
        code, said = cli(["train", "--resume", "--out", str(run)]), "".join(capsys.readouterr())
        passed_over = f"Skipped a damaged checkpoint ({place.parent.name}: "  # and it goes on from the one before
        assert (code, True) in ((4, "does not fit this run" in said), (0, passed_over in said))


def test_forged_best_weights_are_refused_although_their_manifest_is_right(
    canary: Path, forged: Callable[[Path, bytes], Path], trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """M01: the file that `keep=best` brings back at the end of a run."""
    best = json.loads((trained[0] / newest(trained[0], "checkpoints") / "state.json").read_text())["best_step"]
    place = Path("best") / f"step-{best:06d}" / "model.safetensors"
    for item in {item.loader: item for item in corpus(canary)}.values():
        run = unfinished(forged(place, item.content))
        assert cli(["train", "--resume", "--out", str(run), "-q"]) == 4
        said = capsys.readouterr().err
        assert "The best weights in" in said
        assert said.count("\n") == 1


def test_a_manifest_that_names_a_pipe_or_a_file_elsewhere_is_a_fault(
    forged: Callable[[Path, bytes], Path], trained: tuple[Path, Path]
) -> None:
    """M01: a manifest is anybody's; a name in it neither leaves the folder nor keeps the reader waiting."""
    from plusx.durable import folder_fault

    checkpoint = newest(trained[0], "checkpoints")
    run = forged(checkpoint / "state.json", b"{}")
    os.mkfifo(run / checkpoint / "pipe")
    for name in ("pipe", "../../config.yaml", "/dev/zero", ".."):
        told = json.loads((run / checkpoint / MANIFEST).read_text())
        told["files"] = {name: {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}}
        (run / checkpoint / MANIFEST).write_text(json.dumps(told))
        assert folder_fault(run / checkpoint) == f"manifest.json names {name}, which is no file of it"


def test_what_a_run_remembers_is_no_way_in(
    canary: Path, forged: Callable[[Path, bytes], Path], trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """M01: features of neighbours, and hashes of photos that the weights have seen."""
    photo = str(trained[1] / "lying" / "0.jpg")
    for item in {item.loader: item for item in corpus(canary)}.values():
        run = forged(Path("neighbours.safetensors"), item.content)
        assert cli(["explain", str(run), photo, "--out", str(run / "why.png")]) == 4
        assert "neighbours.safetensors is damaged: " in capsys.readouterr().err
        folder = RunFolder(forged(Path("weights-seen.safetensors"), item.content))
        with pytest.raises(ModelError, match=r"weights-seen\.safetensors is "):
            start.seen(folder)


def test_a_forged_file_of_the_lab_is_refused(canary: Path, tmp_path: Path) -> None:
    """M01: `lab surgery` and the other experiments take networks from runs of their own folder, by `Lab.load`."""

    class Opened(Lab):
        def __init__(self) -> None:
            """Nothing that loading needs."""

        def diverged(self, _: Network) -> int | None:
            return None

        def run(self, _: Network) -> RunFolder:
            return RunFolder(tmp_path)

    for item in corpus(canary):
        (tmp_path / "model.safetensors").write_bytes(item.content)
        with pytest.raises(ModelError):
            Opened().load(Network("resnet8"))


def test_tables_in_the_cache_are_read_without_pickles(
    canary: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """M01: the one file of NumPy that plusx reads; a forged one counts as none."""
    assert cli(["check", str(few), "-q"]) in (0, 1)
    table = survey._table()
    assert table.exists()
    arrays = [item for item in corpus(canary) if item.loader in ("numpy", "pickle", "zip", "stored")]
    for item in arrays:
        table.write_bytes(item.content)
        assert len(survey._opened()) == 0
    assert cli(["check", str(few), "-q"]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


def test_a_pipe_or_a_device_as_a_model_keeps_nobody_waiting(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """M01: what is no file is not opened, for it might never end."""
    os.mkfifo(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "model.onnx")
    (tmp_path / "link.safetensors").symlink_to("/dev/zero")
    for name in ("model.safetensors", "model.onnx", "link.safetensors"):
        said = refused(["predict", str(tmp_path / name), str(few)], capsys)
        assert "is no file, but a pipe or a device" in said
    with pytest.raises(ModelError, match="it is no file"):
        start.find(str(tmp_path / "model.safetensors"))


def test_of_a_repository_on_the_hub_one_file_is_fetched_and_it_is_no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """M02: weights that timm knows by name come as safetensors or not at all; timm's own loader, which may unpickle,
    is not asked."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="timm is not installed")
    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        raise Error("far enough")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ModelError):
        hub.fetch(hub.published("timm:resnet18.a1_in1k").repository)
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]


def test_a_harmless_model_passes_all_of_this(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """M01, the control: what is refused above is refused for what it is."""
    assert cli(["predict", str(trained[0]), str(trained[1] / "lying" / "0.jpg"), "-q"]) == 0
    assert np.asarray(draw(0, 0)).any()
    assert capsys.readouterr().err == ""
