"""Recipes and the user's wishes laid over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plusx.errors import UsageError
from plusx.models import default_rate
from plusx.recipes import list_recipes, recipe, resolve
from plusx.recipes.resolve import seconds
from plusx.training.schedule import learning_rate


def resolved(flags: dict[str, Any] | None = None, **others: Any) -> Any:
    return resolve(flags or {}, **({"environment": {}} | others))


def test_the_textbook_recipe_is_the_textbook_program() -> None:
    config = recipe("textbook")
    assert (config.model, config.size, round(config.size * config.resize_ratio)) == ("resnet18-3x3", 224, 256)
    assert (config.optimizer, config.learning_rate, config.momentum, config.weight_decay) == ("sgd", 0.01, 0.0, 0.0)
    assert (config.epochs, config.batch_size, config.drop_last, config.schedule) == (10, 8, False, "constant")
    assert (config.flip, config.crop_scale, config.label_smoothing, config.average) == ("none", None, 0.0, "none")
    assert (config.mean, config.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (config.validation, config.keep, config.save_weights_every) == (False, "last", 100)


def test_the_cifar_recipe_is_the_published_training() -> None:
    config = resolved({"recipe": "cifar"})
    assert (config.model, config.size, config.batch_size, config.precision) == ("resnet20", 32, 128, "fp32")
    assert (config.optimizer, config.momentum, config.nesterov, config.learning_rate) == ("sgd", 0.9, False, 0.1)
    assert (config.weight_decay, config.decay_norms_and_biases) == (1e-4, True)
    assert (config.flip, config.pad * config.size, config.crop_scale) == ("random", 4, None)
    assert (config.label_smoothing, config.views, config.average) == (0.0, ("identity",), "none")
    assert (config.keep, config.patience, config.norm_bias_rate) == ("last", None, 1.0)
    assert config.epochs is not None
    steps_per_epoch = -(-45_000 // config.batch_size)
    assert (steps_per_epoch, config.epochs * steps_per_epoch) == (352, 64_064)

    def rate(done: float, config: Any = config) -> Any:
        factor = learning_rate(config.schedule, done, config.warmup, config.milestones)
        return pytest.approx(factor * config.learning_rate)

    found = [rate(step / 64_000) for step in (0, 399, 400, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert found == [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    for name in ("resnet110", "plain110"):
        deepest = resolved({"recipe": "cifar", "model": name})
        assert [rate(step / 64_000, deepest) for step in (0, 399, 400, 31_999, 32_000)] == [0.01, 0.01, 0.1, 0.1, 0.01]


def test_the_cifar_recipe_trains_plain_networks_as_fast_and_leaves_others_their_rate() -> None:
    plain, other = (resolved({"recipe": "cifar", "model": name}) for name in ("plain56", "vgg16"))
    assert (plain.learning_rate, default_rate("plain56")) == (0.1, 0.02)
    assert other.learning_rate is None
    assert resolved({"recipe": "cifar", "time": "10m"}).epochs is None


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_keeps_the_defaults_of_another_model(name: str) -> None:
    config = recipe(name, "vgg16")
    assert config.model == "vgg16"
    assert (config.width, config.stem) == (1.0, "default")


def test_precedence_is_recipe_file_environment_set_flags(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("seed: 1\nbatch_size: 11\nwarmup: 0.1\nmomentum: 0.5\n")
    config = resolved(
        {"seed": 4, "size": None},
        file=file,
        environment={"PLUSX_SEED": "2", "PLUSX_BATCH_SIZE": "12", "PLUSX_WARMUP": "0.3", "PLUSX_CACHE_GB": "1"},
        sets=["seed=3", "batch_size=13"],
    )
    assert (config.seed, config.batch_size, config.warmup, config.momentum, config.size) == (4, 13, 0.3, 0.5, 80)


def test_a_budget_given_above_replaces_the_other_kind_below() -> None:
    assert resolved({"recipe": "textbook", "time": "10m"}).model_dump(include={"time", "epochs"}) == {
        "time": 600.0,
        "epochs": None,
    }
    assert resolved({"epochs": 3}, environment={"PLUSX_TIME": "60"}).time is None


def test_adamw_gets_a_rate_of_its_own_unless_one_was_asked_for() -> None:
    config = resolved({}, sets=["optimizer=adamw"])
    assert (config.learning_rate, config.norm_bias_rate) == (pytest.approx(0.002), 1.0)
    assert resolved({}, sets=["optimizer=adamw", "learning_rate=0.01"]).learning_rate == 0.01
    assert resolved({"recipe": "finetune"}, sets=["optimizer=adamw"]).learning_rate == pytest.approx(0.0002)
    assert resolved({}).learning_rate == 0.2


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("30", 30), (45, 45)])
def test_durations_are_read(text: str | float, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("flags", "others", "sentence"),
    [
        (
            {"recipe": "textbok"},
            {},
            "There is no recipe 'textbok'; the recipes are best, cifar, fast, finetune, textbook. "
            "Did you mean textbook?",
        ),
        (
            {},
            {"sets": ["batchsize=3"]},
            "--set sets 'batchsize', which is no setting. Did you mean batch_size? docs/cli.md lists the settings.",
        ),
        ({}, {"sets": ["seed"]}, "--set expects key=value, such as --set checkpoint_every=3, and got 'seed'."),
        (
            {"batch_size": 0},
            {},
            "the command line sets batch_size to 0: input should be greater than or equal to 1.",
        ),
        (
            {},
            {"environment": {"PLUSX_FLIP": "sideways"}},
            "the environment sets flip to 'sideways': input should be 'none', 'random' or 'alternating'.",
        ),
        (
            {},
            {"environment": {"PLUSX_SEDE": "3", "HOME": "/"}},
            "The environment sets PLUSX_SEDE, which plusx does not know. Did you mean PLUSX_SEED? "
            "docs/cli.md lists the settings; unset what is none.",
        ),
        (
            {},
            {"environment": {"PLUSX_CACHE_BG": "3"}},
            "The environment sets PLUSX_CACHE_BG, which plusx does not know. Did you mean PLUSX_CACHE_GB? "
            "docs/cli.md lists the settings; unset what is none.",
        ),
        (
            {},
            {"environment": {"PLUSX_XYZ": "3"}},
            "The environment sets PLUSX_XYZ, which plusx does not know. "
            "docs/cli.md lists the settings; unset what is none.",
        ),
        (
            {"time": "10m", "epochs": 3},
            {},
            "--time and --epochs were both given, and only one of them can decide how long to train; leave one out.",
        ),
        ({}, {"sets": ["model=5"]}, "--set sets model to 5: input should be a valid string."),
        ({}, {"sets": ["time=[1]"]}, "--time expects a duration such as 90s, 10m or 2h, and got '[1]'."),
        (
            {},
            {"sets": ["std=[0, 0, 0]"]},
            "--set sets std to 0: input should be greater than 0.",
        ),
        (
            {},
            {"sets": ["crop_scale=[0.9, 0.5]"]},
            "--set sets crop_scale to [0.9, 0.5]: the first number should not be above the second.",
        ),
        (
            {},
            {"sets": ["pad=0.125"]},
            "pad and crop_scale both crop at random, and only one of them can; set pad=0 or crop_scale=null.",
        ),
        (
            {},
            {"sets": ["sizes=[[0.5, 0.5]]"]},
            "--set sets sizes to [[0.5, 0.5]]: the shares of the steps should add up to 1.",
        ),
        ({"time": "soon"}, {}, "--time expects a duration such as 90s, 10m or 2h, and got 'soon'."),
        (
            {"split": "90/20/10"},
            {},
            "--split 90/20/10 is not understood: expected three whole percentages for train/val/test that sum to 100, "
            "train above 0, such as 80/10/10.",
        ),
        (
            {"learning_rate": float("nan")},
            {},
            "the command line sets learning_rate to nan: input should be a finite number.",
        ),
    ],
)
def test_a_wrong_wish_is_one_sentence(flags: dict[str, Any], others: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(flags, **others)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "{file} cannot be read as a YAML file of settings: No such file or directory."),
        ("- 1", "{file} cannot be read as a YAML file of settings: it holds no `name: value` lines."),
        ("a: [", "{file} cannot be read as a YAML file of settings: while parsing a flow node."),
    ],
)
def test_a_wrong_settings_file_is_one_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    file = tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolved(file=file)
    assert caught.value.message == sentence.format(file=file)
