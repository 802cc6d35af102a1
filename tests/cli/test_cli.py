"""The command line: flags, sentences and exit codes."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import plusx
from plusx.cli.formats import write_rows
from plusx.cli.run import VERBS, run
from plusx.cli.train import train
from plusx.verbs.predict import Row
from tests.verbs.conftest import SETS, fill

FLAGS = [
    *("data", "recipe", "model", "weights", "time", "epochs", "size", "batch_size", "split", "skip_bad", "risk"),
    *("seed", "seeds", "device", "out", "resume", "accept_changes", "plan", "decisions", "config", "set_"),
    *("json", "quiet", "verbose"),
]


def lines(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_flags_of_train_are_few_and_frozen() -> None:
    assert list(inspect.signature(train).parameters) == FLAGS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_explains_every_flag(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    out, _ = lines(capsys)
    assert out.startswith(f"Usage: plusx {verb}")
    shown = re.findall(r"^│ +\*? *(-\S+|[A-Z]\S*).*?  +(\S.*?) *│$", out, flags=re.MULTILINE)
    function = getattr(importlib.import_module(f"plusx.cli.{verb}"), verb)
    assert len(shown) == len(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("tokens", "code", "sentence"),
    [
        (["trian", "x"], 2, "Did you mean"),
        (["train", "x", "--epoch", "3"], 2, "Did you mean --epochs? `plusx train --help` lists what it takes."),
        (["train", "x", "--epochs", "many"], 2, "Invalid value for --epochs: 'many' is no whole number."),
        (["train", "x", "--epochs", "1.5"], 2, "Invalid value for --epochs: '1.5' is no whole number."),
        (["train", "/nowhere/at/all"], 3, "/nowhere/at/all does not exist"),
        (["train", "."], 3, "plusx: . holds no photos: expected a folder with one folder per class"),
        (["train", "--resume"], 2, "--resume needs the run folder it continues: add --out runs/NAME"),
        (
            ["train", ".", "--recipe", "slow"],
            2,
            "There is no recipe 'slow'; the recipes are best, cifar, fast, finetune, textbook.",
        ),
        (["evaluate", "/nowhere"], 4, "There is no /nowhere; expected a model.safetensors of plusx"),
        (["predict", "/nowhere", "--jsn"], 2, "There is no option or file --jsn. Did you mean --json? `plusx predict"),
        (["predict", "/nowhere", "x.jpg"], 4, "There is no /nowhere; expected a model.safetensors of plusx"),
        (["models", "resnet81"], 2, "There is no model 'resnet81'; `plusx models` lists them. Did you mean resnet8?"),
        (["models", "alexnet", "--size", "32"], 2, "alexnet needs photos of at least 63 px and --size is 32"),
    ],
)
def test_a_mistake_is_one_sentence_and_its_exit_code(
    tokens: list[str],
    code: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(tokens) == code
    out, err = lines(capsys)
    assert out == ""
    assert err.startswith("plusx: ")
    assert sentence in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_the_package_runs_as_a_module() -> None:
    told = subprocess.run([sys.executable, "-m", "plusx", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == plusx.__version__


def test_answers_go_through_a_pipe_and_a_device_stays_what_it_is(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_rows(iter([Row("a.jpg", "cat", 0.5, {"cat": 0.5}, "cat", None)]), "csv", pipe)
    reader.join(timeout=10)
    assert b"a.jpg,cat,0.5" in read[0]
    assert pipe.is_fifo()


def test_a_full_disk_behind_stdout_is_one_sentence_and_a_reader_that_leaves_is_none() -> None:
    command = [sys.executable, "-m", "plusx", "models"]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert told.returncode == 5
    assert told.stderr == "plusx: Could not write the results: No space left on device; send them elsewhere.\n"
    left = subprocess.run(f"{shlex.join(command)} | true", shell=True, stderr=subprocess.PIPE, text=True)
    assert left.stderr == ""


def test_the_layer_table_of_the_textbook_network_ends_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "resnet18-3x3", "--size", "32"]) == 0
    out, _ = lines(capsys)
    assert out.splitlines()[-1].split() == ["total", "11,169,858"]
    assert out.splitlines()[1].split() == ["conv1", "Conv2d", "64", "x", "32", "x", "32", "1,728"]


def test_the_networks_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--classes", "1000"]) == 0
    rows = [line.split() for line in lines(capsys)[0].splitlines()]
    assert rows[0] == ["network", "parameters", "smallest", "px"]
    assert rows[1][0] == "resnet10"
    assert ["resnet18", "11,689,512", "32"] in rows
    assert ["alexnet", "61,100,840", "63"] in rows


@pytest.mark.parametrize("traced", [False, True])
def test_a_fault_of_plusx_itself_is_one_sentence_and_its_trace_is_for_those_who_ask(
    traced: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: bool) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("plusx.verbs.cache.cache", broken)
    monkeypatch.setenv("PLUSX_TRACE", "1" if traced else "")
    assert run(["cache"]) == 1
    err = lines(capsys)[1]
    assert ("Traceback" in err) == traced
    assert err.endswith(
        "plusx: met a fault of its own (RuntimeError: two lines); "
        "run it again with PLUSX_TRACE=1 set and report what it prints.\n"
    )


def test_the_whole_path_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = fill(tmp_path / "stripes", {"lying": 20, "standing": 20})
    assert run(["check", str(data)]) == 0
    lines(capsys)
    sets = [token for text in SETS for token in ("--set", text)]
    flags = ["--model", "resnet20", "--size", "32", "--batch-size", "16", "--epochs", "2", "--device", "cpu"]
    assert run(["train", str(data), *flags, *sets, "--json"]) == 0
    out, _ = lines(capsys)
    trained = json.loads(out)
    assert trained["run"] == "runs/stripes-fast-1"
    assert run(["evaluate", trained["run"], "--json"]) == 0
    evaluation = json.loads(lines(capsys)[0])
    assert set(evaluation) == {
        *("n", "accuracy", "accuracy_ci95", "log_loss", "ece", "per_class", "confusion", "classes", "coverage"),
        *("reliability", "answered"),
        *("risk_coverage", "model_sha256", "data_fingerprint", "seconds", "images_per_second", "left_out", "skipped"),
    }
    assert run(["evaluate", trained["run"]]) == 0
    out, err = lines(capsys)
    assert out.startswith("4 photos of the test split of runs/stripes-fast-1 in ")
    assert "\naccuracy " in out
    assert "Next: plusx predict runs/stripes-fast-1 PHOTO" in err
    assert run(["predict", trained["model"], str(data / "lying"), "--csv", "--out", "answers.csv"]) == 0
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 21
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{data}/lying/0.jpg\n\n{data}/standing/1.jpg\n"))
    assert run(["predict", trained["model"], "-", "--json"]) == 0
    answered = json.loads(lines(capsys)[0])["predictions"]
    assert [row["path"] for row in answered] == [f"{data}/lying/0.jpg", f"{data}/standing/1.jpg"]
    assert run(["predict", trained["model"], str(tmp_path / "runs" / "nothing*")]) == 3
    (tmp_path / "empty").mkdir()
    assert run(["predict", trained["model"], "empty"]) == 3
    assert "plusx: empty holds no files to answer for; name photos, or a folder of them." in lines(capsys)[1]
    before = (data / "lying" / "0.jpg").read_bytes()
    for out in ("stripes/lying/0.jpg", "stripes/lying/1.jpg", trained["model"]):
        assert run(["predict", trained["model"], "stripes/lying/0.jpg", "stripes", "--csv", "--out", out]) == 2
        assert f"plusx: --out {out} would overwrite what is read (" in lines(capsys)[1]
    assert (data / "lying" / "0.jpg").read_bytes() == before
    (tmp_path / "link.csv").symlink_to("real.csv")
    assert run(["predict", trained["model"], "stripes/lying/0.jpg", "--csv", "--out", "link.csv"]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert len((tmp_path / "real.csv").read_text().splitlines()) == 2
    assert run(["predict", trained["model"], "stripes/lying/0.jpg", "--out", "nowhere/x.csv"]) == 5
    assert "its folder does not exist: make it, or name another with --out." in lines(capsys)[1]
    assert run(["predict", trained["model"], "stripes/lying/0.jpg", "--batch-size", "0"]) == 2
    assert "plusx: --batch-size is 0 and must be at least 1." in lines(capsys)[1]
    assert run(["predict", trained["model"], "--json", "--csv", "x.jpg"]) == 2
    assert "--json and --csv ask for different outputs; give one of them." in lines(capsys)[1]
    assert run(["predict", trained["model"], "missing.jpg"]) == 3
    out, err = lines(capsys)
    assert "missing.jpg" in out
    assert err == "1 of 1 could not be read; their rows say why.\n"
    assert run(["predict", trained["model"], "missing.jpg", "-q"]) == 3
    assert lines(capsys) == (out, "")
    assert run(["predict", trained["model"], "stripes/lying/0.jpg", "-v"]) == 0
    told = (
        f"{trained['model']}: resnet20, step 4, 32 px; "
        "views identity, flip, closer, closer-flip; classes lying, standing\nanswers: 1, "
    )
    assert lines(capsys)[1].startswith(told)
    assert run(["cache", "--clear"]) == 0
    assert "0 decoded sets, 0.0 MB" in lines(capsys)[0]


def test_a_file_name_gives_no_orders_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from plusx.cli.terminal import document, result

    result("\x1b[2J\udcff é.jpg")
    document({"name": "\x1b[2J\udcff é.jpg"})
    assert capsys.readouterr().out == ('\\x1b[2J\\udcff é.jpg\n{\n  "name": "\\u001b[2J\\udcff é.jpg"\n}\n')
