"""The recipes: functions of the model that was asked for (None: their own) that return a complete Config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plusx.config import Config, Views
from plusx.errors import usage
from plusx.models import default_rate
from plusx.models.registry import CIFAR_DEPTHS

_FAST_NETWORK: dict[str, Any] = {
    "stem": "whitened",
    "downsampling": "pool",
    "learning_rate": 0.2,
    "norm_bias_rate": 16.0,
}
_BOTH_SIDES: Views = ("identity", "flip")
_TO_80_PX = {"width": 0.5, "size": 80, "sizes": ((0.5, 0.6), (0.375, 0.8), (0.125, 1.0))}
_LONG: dict[str, Any] = {"crop_scale": (0.35, 1.0), "colour": 0.2, "erasing": 0.1}  # seen often, made more varied
# What a time budget affords, the smallest first. `docs/experiments.md` has what each is worth.
SCALES: dict[str, dict[str, Any]] = {
    "small": {"model": "resnet10", **_TO_80_PX},
    "medium": {"model": "resnet16", **_TO_80_PX},
    "large": {
        "model": "resnet16",
        "width": 0.5,
        "size": 96,
        "sizes": ((0.4, 0.67), (0.4, 0.83), (0.2, 1.0)),
    },
    "huge": {
        "model": "resnet18",
        "width": 0.75,
        "size": 128,
        "sizes": ((0.4, 0.5), (0.4, 0.75), (0.2, 1.0)),
        **_LONG,
    },
}
CIFAR_NETWORKS = [f"{kind}{depth}" for kind in ("resnet", "plain") for depth in CIFAR_DEPTHS]
SLOWER = 5  # a model's rate from scratch over that of tuning it
# From so many epochs on a scale is ahead of the one before it.
ENOUGH_EPOCHS = {"small": 0.0, "medium": 8.0, "large": 10.0, "huge": 30.0}


def textbook(model: str | None = None) -> Config:
    """The program plusx was founded on: ResNet-18 with a 3x3 stem, plain SGD, ten epochs at 224 px.

    `plusx train DATA --recipe textbook`. Its author reports 93.23 % on Kaggle's Dogs vs Cats; about
    six days on two CPU cores. `docs/textbook.md` lays it beside the original piece by piece.
    """
    return Config(
        recipe="textbook",
        model=model or "resnet18-3x3",
        size=224,
        resize_ratio=256 / 224,
        epochs=10,
        batch_size=8,
        merge_lone=False,
        learning_rate=0.01,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        decay_norms_and_biases=True,
        schedule="constant",
        validation=False,
        show_every_step=True,
        log_every=100,
        save_weights_every=100,
    )


def fast(model: str | None = None, scale: str = "auto") -> Config:
    """A narrow ResNet behind a whitened stem, small pictures that grow: the default.

    `plusx train DATA --time 10m`. Whitened stem and fast norm biases after airbench (Jordan 2024,
    arXiv 2404.00498, sections 3.2 and 3.4), growing sizes after fast.ai's DAWNBench entry, pooling in the place
    of strides after Page (2018) and ResNet-D (arXiv 1812.01187). What it reaches is written in
    `docs/experiments.md`. `scale` "auto" is the smallest until somebody knows what the time budget affords.
    Any other model keeps its own stem and rate, and is not scaled.
    """
    known = SCALES.get(scale, SCALES["small"])
    sizes = {name: known[name] for name in ("size", "sizes")}
    network = {**_FAST_NETWORK, **known, "scale": scale} if model is None else {"model": model, **sizes}
    training: dict[str, Any] = {
        "precision": "auto",
        "checkpoint_every": 1_000_000,  # by the clock: a step may take twenty milliseconds
        "views": (*_BOTH_SIDES, "closer", "closer-flip"),
        "batch_size": 64,
        "weight_decay": 5e-4,
        "schedule": "triangular",
        "warmup": 0.2,
        "label_smoothing": 0.1,
        "flip": "alternating",
        "crop_scale": (0.5, 1.0),
        "patience": "auto",
    }
    return Config(recipe="fast", **{**training, **network})


def best(model: str | None = None) -> Config:
    """A full-width ResNet-18 of the fast recipe's kind at 128 px with stronger augmentation, for hours or a GPU.

    `plusx train DATA --recipe best --time 2h`. Its settings follow the literature and are not yet
    tuned or measured here: see `docs/experiments.md`.
    """
    values = fast(model, "huge").model_dump() | {**_LONG, "recipe": "best", "width": 1.0, "average": "ema"}
    return Config.model_validate(values)


def finetune(model: str | None = None) -> Config:
    """From weights to one's own classes: low rates, lowest near the input, and the head alone at first.

    `plusx train DATA --weights FILE`, for which it is the default. Rates that grow from layer to layer and a head
    that learns first after Howard and Ruder (2018, arXiv 1801.06146, section 3.2 and 3.3). Network and normalisation
    are those that the weights were made for, and of a model file of plusx the size too.
    """
    name = model or "resnet18"
    return Config(
        recipe="finetune",
        model=name,
        size=128,
        precision="auto",
        checkpoint_every=1_000_000,
        views=_BOTH_SIDES,
        batch_size=64,
        learning_rate=default_rate(name) / SLOWER,
        input_rate=0.1,
        frozen=0.1,
        weight_decay=1e-4,
        schedule="triangular",
        warmup=0.2,
        label_smoothing=0.1,
        flip="alternating",
        crop_scale=(0.5, 1.0),
        patience="auto",
    )


def cifar(model: str | None = None) -> Config:
    """The training of He et al. 2015 (arXiv 1512.03385, section 4.2) for CIFAR-10, resnet20 unless told otherwise.

    `plusx train DATA --recipe cifar --split 90/10/0`: of its 50,000 training photos 45,000 are trained on, 182 times,
    which is 64,064 steps of 128; the rate falls to a tenth at a half and at three quarters of them, 32,000 and 48,000.
    Photos are padded by an eighth (4 px of 32) and cropped back at random. With 110 layers the rate is a tenth for the
    first 400 of 64,000 steps, about as long as it took the authors until fewer than 80 % of the answers were wrong.
    """
    name = model or "resnet20"
    return Config(
        recipe="cifar",
        model=name,
        size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        epochs=182,
        batch_size=128,
        learning_rate=0.1 if name in CIFAR_NETWORKS else None,
        nesterov=False,
        weight_decay=1e-4,
        decay_norms_and_biases=True,
        schedule="steps",
        milestones=(0.5, 0.75),
        warmup=400 / 64_000 if name in ("resnet110", "plain110") else 0.0,
        flip="random",
        pad=0.125,
        checkpoint_every=1_000_000,
    )


_RECIPES: dict[str, Callable[[str | None], Config]] = {
    "best": best,
    "cifar": cifar,
    "fast": fast,
    "finetune": finetune,
    "textbook": textbook,
}


def list_recipes() -> tuple[str, ...]:
    """The names of all recipes, sorted."""
    return tuple(_RECIPES)


def recipe(name: str, model: str | None = None, scale: str = "auto") -> Config:
    """The complete configuration of recipe `name` for `model`; `scale` is the fast one's.

    Raises UsageError for an unknown name.
    """
    if name not in _RECIPES:
        raise usage.unknown_recipe(name, _RECIPES)
    return fast(model, scale) if name == "fast" else _RECIPES[name](model)
