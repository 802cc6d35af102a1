"""Starting from weights: files, model files and names of timm, and everything that can be wrong with them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

import plusx
from plusx import model_file
from plusx.cli.run import run as cli
from plusx.errors import Error, ModelError, UsageError
from plusx.models import transfer
from plusx.training.checkpoint import found
from plusx.training.events import Notice, StepDone
from plusx.verbs import hub, start
from plusx.verbs.reports import Started
from plusx.verbs.train import train
from plusx.verbs.wish import Wish
from tests.verbs.conftest import QUICK, SETS

SMALL: dict[str, Any] = {"epochs": 1, "size": 32, "batch_size": 16, "seed": 1, "device": "cpu"}


def run(data: Path, out: Path, weights: Path | str, *sets: str, **flags: Any) -> tuple[Any, list[Any]]:
    events: list[Any] = []
    wish = Wish({**SMALL, "weights": str(weights), **flags}, ("workers=0", *sets), out=out)
    return train([str(data)], wish, on_event=events.append), events


def texts(events: list[Any], kind: type) -> list[str]:
    return [event.text for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Torchvision's ResNet-18 for a thousand classes, as a safetensors file."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("foreign") / "resnet18.safetensors"
    safetensors.torch.save_file(torchvision.models.resnet18().state_dict(), path)
    return path


def cifar(path: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda _: None) -> Path:
    """A small network's tensors without plusx's header, perhaps changed."""
    torch.manual_seed(3)
    tensors = plusx.create_model("resnet20", 10).state_dict()
    change(tensors)
    safetensors.torch.save_file(tensors, path)
    return path


def own(data: Path, out: Path, *sets: str, **flags: Any) -> Any:
    """A run from scratch."""
    return train([str(data)], Wish(QUICK | flags, SETS + sets, out=out))


def test_torchvisions_weights_become_a_model_of_the_standard_network(foreign: Path, data: Path, tmp_path: Path) -> None:
    trained, events = run(data, tmp_path / "run", foreign, "frozen=1")
    assert texts(events, Started) == [
        f"weights: 120 of 122 tensors (99.9 % of the parameters) from {foreign}; new: fc.weight, fc.bias; "
        "not used: fc.bias, fc.weight"
    ]
    header = model_file.read_header(trained.model)
    assert header.network == {"name": "resnet18"}
    assert header.config["recipe"] == "finetune"
    report = json.loads((trained.run / "weights.json").read_text())
    assert report["sha256"] == hashlib.sha256(foreign.read_bytes()).hexdigest()
    assert (report["source"], report["path"], report["new"]) == (str(foreign), str(foreign), ["fc.weight", "fc.bias"])
    assert len(report["matched"]) == 120
    kept, given = model_file.load(trained.model).tensors, safetensors.torch.load_file(foreign)
    for name in given.keys() - {"fc.weight", "fc.bias"}:  # frozen all the way
        assert np.array_equal(kept[f"network.{name}"].reshape(given[name].shape), given[name].numpy()), name


def test_weights_that_may_learn_do(foreign: Path, data: Path, tmp_path: Path) -> None:
    trained, _ = run(data, tmp_path / "run", foreign, "frozen=0")
    kept, given = model_file.load(trained.model).tensors, safetensors.torch.load_file(foreign)
    assert not np.array_equal(kept["network.conv1.weight"], given["conv1.weight"].numpy())


def test_a_recipe_with_its_own_network_takes_that_of_the_weights(data: Path, tmp_path: Path) -> None:
    path = cifar(tmp_path / "w.safetensors")
    trained = plusx.train(data, out=tmp_path / "run", weights=path, recipe="fast", workers=0, **SMALL)
    header = model_file.read_header(trained.model)
    assert (header.network, header.config["scale"]) == ({"name": "resnet20"}, "small")


def test_a_model_of_plusx_keeps_its_network_its_head_and_its_photos(data: Path, tmp_path: Path) -> None:
    first = own(data, tmp_path / "first", "stem=whitened")
    trained, events = run(data, tmp_path / "second", first.run, "frozen=1", "learning_rate=1e-12", seed=5)
    before, after = model_file.load(first.model), model_file.load(trained.model)
    assert after.header.network == before.header.network == {"name": "resnet20", "width": 0.25, "stem": "whitened"}
    assert texts(events, Started) == [
        f"weights: {len(before.weights)} of {len(before.weights)} tensors (100 % of the parameters) from {first.run}"
    ]
    for name, value in before.weights.items():
        np.testing.assert_allclose(after.weights[name], value, atol=1e-9, err_msg=name)  # the whitened filters too
    assert set(before.seen) <= set(after.seen)
    assert len(after.seen) > len(before.seen)
    known = re.fullmatch(
        r"The weights were trained or chosen on (\d+) of the 6 validation photos, which flatters validation; "
        r"`plusx evaluate` leaves such photos out of the test.",
        texts(events, Notice)[0],
    )
    assert known


def test_a_model_for_other_classes_gets_a_new_head(data: Path, tmp_path: Path) -> None:
    first = own(data, tmp_path / "first")
    other = shutil.copytree(data, tmp_path / "other")
    (other / "lying").rename(other / "level")
    _, events = run(other, tmp_path / "second", first.model)
    assert "new: fc.weight, fc.bias; not used: network.fc.bias, network.fc.weight" in texts(events, Started)[0]


def test_the_rows_of_a_kept_head_follow_the_names_of_the_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = plusx.create_model("resnet20", 2)
    tensors = {f"network.{name}": value.clone() for name, value in network.state_dict().items()}
    weights = start.Weights("w", tmp_path, "", tensors, {}, ("b", "a"))
    given = torch.nn.Module()
    given.network = plusx.create_model("resnet20", 2)
    start.load(given, weights, ("a", "b"), "resnet20")  # type: ignore[arg-type]
    assert torch.equal(given.network.fc.bias, network.fc.bias.flip(0))
    assert torch.equal(given.network.conv1.weight, network.conv1.weight)


def power_cut(at: int) -> Callable[[Any], None]:
    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == at:
            raise MemoryError("power cut")

    return listen


@pytest.mark.parametrize("cut", [1, 4, 5, 7])
def test_a_run_from_weights_cut_before_or_after_its_thaw_resumes_exactly(
    cut: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = cifar(tmp_path / "w.safetensors")
    sets = ("frozen=0.5", "checkpoint_every=2", "average=ema", "workers=0")
    wish = {**SMALL, "epochs": 3, "weights": "w.safetensors"}
    monkeypatch.chdir(tmp_path)
    whole = train([str(data)], Wish(wish, sets, out=tmp_path / "whole"))
    with pytest.raises(MemoryError):
        train([str(data)], Wish(wish, sets, out=tmp_path / "cut"), on_event=power_cut(cut))
    monkeypatch.chdir("/")
    if found(tmp_path / "cut" / "checkpoints"):
        weights.unlink()  # no longer needed
    resumed = train([], Wish(out=tmp_path / "cut", resume=True))
    assert resumed.model.read_bytes() == whole.model.read_bytes()


@pytest.mark.parametrize(("harm", "what"), [("gone", "is gone"), ("other", "has other bytes than it had")])
def test_a_run_without_a_checkpoint_needs_its_weights_again(harm: str, what: str, data: Path, tmp_path: Path) -> None:
    weights = cifar(tmp_path / "w.safetensors")
    wish = Wish({**SMALL, "weights": str(weights)}, ("workers=0",), out=tmp_path / "cut")
    with pytest.raises(MemoryError):
        train([str(data)], wish, on_event=power_cut(1))
    weights.unlink()
    if harm == "other":
        cifar(weights, lambda tensors: tensors["conv1.weight"].mul_(2))
    with pytest.raises(ModelError) as caught:
        train([], Wish(out=tmp_path / "cut", resume=True))
    assert caught.value.message == (
        f"The run in {tmp_path / 'cut'} has no checkpoint yet and needs its weights {weights} again, "
        f"and {weights} {what}; bring them back, or start a new run."
    )


def nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")


def whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv1.weight"] = tensors["conv1.weight"].int()


def half(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("layer3")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "flags", "sentence"),
    [
        (nan, {}, "layer2.0.conv1.weight in {file} holds numbers that are not finite, and nothing can be learned from"),
        (whole_numbers, {}, "conv1.weight is torch.int32 in {file} and torch.float32 in resnet20: leave --model"),
        (
            lambda _: None,
            {"model": "resnet18"},
            "conv1.weight is 16 x 3 x 3 x 3 in {file} and 64 x 3 x 7 x 7 in resnet18: leave --model and the settings "
            "of the network out, or give those that these weights were made for, resnet20.",
        ),
        (
            half,
            {"model": "resnet20"},
            "{file} holds 24 % of the parameters of resnet20 outside its head, and less than half is no start "
            "(layer3.0.conv1.weight is missing, for one): choose the --model that these weights were made for.",
        ),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence_before_there_is_a_run(
    change: Callable[[Any], None], flags: dict[str, Any], sentence: str, data: Path, tmp_path: Path
) -> None:
    weights = cifar(tmp_path / "w.safetensors", change)
    with pytest.raises(ModelError) as caught:
        run(data, tmp_path / "run", weights, **flags)
    assert caught.value.message.startswith(sentence.format(file=weights))
    assert not (tmp_path / "run").exists()


def test_half_precision_weights_are_taken(data: Path, tmp_path: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({n: v.bfloat16() for n, v in tensors.items() if v.is_floating_point()})

    trained, _ = run(data, tmp_path / "run", cifar(tmp_path / "w.safetensors", halve))
    assert model_file.load(trained.model).tensors["network.conv1.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no {file}; --weights takes a .safetensors file, a run folder of plusx, or timm:NAME."),
        (b"", "{file} is an empty file; --weights takes a .safetensors file, a run folder of plusx, or timm:NAME."),
        (
            b"\x80\x02}q",
            "{file} is a Python pickle, which plusx never loads; if you trust where it comes from, convert",
        ),
        (b"PK\x03\x04....", "{file} is a zip archive, perhaps a PyTorch .pt file; plusx never loads pickles; if you"),
        (b"a picture of a cat", "{file} is no safetensors file or a damaged one ("),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        start.find(str(path))
    assert caught.value.message.startswith(sentence.format(file=path))


def test_the_command_in_the_sentence_about_pickles_converts_one(tmp_path: Path) -> None:
    pickled = tmp_path / "w.pt"
    torch.save(plusx.create_model("resnet20", 2).state_dict(), pickled)
    with pytest.raises(ModelError) as caught:
        start.find(str(pickled))
    command = caught.value.message.partition("convert it once: ")[2].replace("python", sys.executable, 1)
    import subprocess

    subprocess.run(command, shell=True, check=True)
    assert start.find(str(tmp_path / "w.safetensors")).settings["model"] == "resnet20"


def test_a_cut_off_file_is_a_damaged_one(tmp_path: Path) -> None:
    path = cifar(tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"is no safetensors file or a damaged one \(.*; copy or download it again"):
        start.find(str(path))


@pytest.mark.parametrize("flags", [["--recipe", "finetune"], ["--set", "frozen=0.2"]])
def test_there_is_nothing_to_hold_still_without_weights(
    flags: list[str], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["train", str(data), *flags]) == 2
    assert capsys.readouterr().err == (
        "plusx: The finetune recipe, and `frozen`, hold still what was learned before, and there is nothing: "
        "add --weights FILE, or choose another --recipe.\n"
    )


def test_the_command_line_says_what_matched(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = cifar(tmp_path / "w.safetensors")
    flags = ["--epochs", "1", "--size", "32", "--device", "cpu", "--set", "workers=0"]
    assert cli(["train", str(data), "--weights", str(weights), "--out", str(tmp_path / "run"), *flags]) == 0
    err = capsys.readouterr().err
    assert f"(99.9 % of the parameters) from {weights}; new: fc.weight, fc.bias; not used: fc.bias, fc.wei" in err


# names of timm


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is not installed")


def test_a_name_of_timm_is_fetched_and_trained(
    timm: Any, foreign: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(start, "fetch", lambda repository: asked.append(repository) or foreign)
    trained, events = run(data, tmp_path / "run", "timm:resnet18.a1_in1k", "width=1")
    assert asked == ["timm/resnet18.a1_in1k"]
    assert model_file.read_header(trained.model).network == {"name": "resnet18"}
    assert "from timm:resnet18.a1_in1k; new" in texts(events, Started)[0]


def test_a_network_that_is_timms_own_comes_with_its_normalisation_and_size(timm: Any) -> None:
    known = hub.published("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert known.repository == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert known.settings["model"] == "timm/vit_tiny_patch16_224"
    assert (known.settings["mean"], known.settings["size"]) == ((0.5, 0.5, 0.5), 224)
    assert hub.published("timm:resnet50").settings["model"] == "resnet50"


@pytest.mark.parametrize("name", ["resnet81", "resnet18.a99_in1k"])
def test_a_name_that_timm_does_not_know_is_one_sentence(timm: Any, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        hub.published(f"timm:{name}")
    assert caught.value.message.startswith(
        f"timm knows no weights named {name!r}; expected the name of a network, with a tag if you like, such as "
        "timm:resnet18 or timm:resnet18.a1_in1k. Did you mean resnet"
    )


def test_without_timm_the_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError) as caught:
        hub.published("timm:resnet18")
    assert caught.value.message == "timm:resnet18 needs an extra: pip install 'plusx[timm]'."


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Error:
    """What `fetch` makes of an error of the hub's client."""
    client = pytest.importorskip("huggingface_hub", reason="it comes with timm, which is not installed")

    def refuse(repository: str, file: str) -> str:
        assert file == "model.safetensors"  # never a pickle
        raise error

    monkeypatch.setattr(client, "hf_hub_download", refuse)
    with pytest.raises(ModelError) as caught:
        hub.fetch("timm/resnet18.a1_in1k")
    return caught.value


def test_a_hub_without_the_file_or_without_an_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = pytest.importorskip("huggingface_hub.errors", reason="it comes with timm, which is not installed")
    absent = failing(monkeypatch, faults.EntryNotFoundError("404"))
    assert absent.message == (
        "The hub's repository timm/resnet18.a1_in1k has no model.safetensors, and plusx never loads pickles; "
        "choose another tag or network."
    )
    unreached = failing(monkeypatch, faults.LocalEntryNotFoundError("No connection. Try again."))
    assert unreached.message == (
        "timm/resnet18.a1_in1k could not be fetched from the hub (No connection); check the network and type the same "
        "command again, or download model.safetensors by other means and give the file."
    )
    assert failing(monkeypatch, faults.HFValidationError("bad name")).message == (
        "The hub does not give out timm/resnet18.a1_in1k (bad name); check the name and your access to it, "
        "or download model.safetensors by other means and give the file."
    )
    assert failing(monkeypatch, TimeoutError()).code == "hub-unreachable"


def first_loss(run: Path) -> float:
    return float(json.loads((run / "history.jsonl").read_text().splitlines()[0])["loss"])


def test_identity_blocks_make_a_trained_network_deeper_and_its_first_step_is_the_shallower_ones(
    data: Path, tmp_path: Path
) -> None:
    shallow = own(data, tmp_path / "shallow")
    how = ("width=0.25", "frozen=0", "log_every=1")
    kept, _ = run(data, tmp_path / "kept", shallow.run, *how)
    grown, events = run(data, tmp_path / "grown", shallow.run, *how, "zero_init_residual=true", model="resnet56")
    assert "(31.7 % of the parameters)" in texts(events, Started)[0]
    assert first_loss(grown.run) == first_loss(kept.run)


@pytest.mark.parametrize("model", ["resnet56", "plain56"])
def test_blocks_that_are_no_identity_are_not_laid_around_a_few_weights(model: str, data: Path, tmp_path: Path) -> None:
    path = cifar(tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=f"holds 32 % of the parameters of {model} outside its head, and less than"):
        run(data, tmp_path / "run", path, model=model)


def test_weights_that_lack_a_block_in_the_middle_of_a_stage_are_a_start_if_it_is_an_identity(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = plusx.create_model("resnet20", 10, zero_init_residual=True)
    every = set(network.state_dict())
    block = {name for name in every if name.startswith("layer2.1.")}
    assert transfer.deepens(network, block, ())
    assert transfer.deepens(network, block | {"fc.weight"}, ("fc.weight", "fc.bias"))
    assert not transfer.deepens(network, block - {"layer2.1.conv1.weight"}, ()), "half a block is theirs"
    assert not transfer.deepens(network, {n for n in every if n.startswith("layer2.0.")}, ()), "it changes shapes"
    assert not transfer.deepens(network, {"conv1.weight"}, ())
    assert not transfer.deepens(plusx.create_model("resnet20", 10), block, ()), "its branch is not zero"
    assert not transfer.deepens(plusx.create_model("plain20", 10), block, ()), "it has no shortcut"
