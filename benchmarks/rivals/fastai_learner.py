"""fastai: a vision learner as its documentation begins with, and the settings of its own from-scratch records."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.vision.all import (
    Callback,
    CancelFitException,
    DataLoaders,
    FlipItem,
    ImageDataLoaders,
    LabelSmoothingCrossEntropy,
    Learner,
    Normalize,
    RandomResizedCrop,
    Resize,
    accuracy,
    get_image_files,
    imagenet_stats,
    ranger,
    resnet18,
    to_float,
    vision_learner,
    xresnet18,
)
from loop import has_bf16
from trial import Journal, Trial

PEER = {
    "name": "fastai",
    "packages": ["fastai==2.8.12"],
    "needs": [
        "fastcore>=2.2.22",
        "fasttransform>=0.0.3",
        "fastprogress",
        "fastdownload",
        "plum-dispatch<2.10",
        "pandas",
        "requests",
        "matplotlib",
        "scikit-learn",
        "scipy",
        "pyyaml",
        "packaging",
        "cloudpickle",
    ],
    "settings": {
        "default": "vision_learner(resnet18, pretrained=False), Resize(128), batches of 64, fit_one_cycle with Adam",
        "best": "xresnet18, 64 px, 96 px in the last 40 % of the time, RandomResizedCrop from "
        "35 %, FlipItem, ranger at 4e-3, label smoothing, fit_flat_cos, bf16, channels last, tta",
    },
    "testing_minutes": {"default": 2, "best": 3},
}
ENDLESS = 10_000  # epochs: the clock ends a trial
LARGE_FROM = 0.6  # of the minutes


class ByTheClock(Callback):  # type: ignore[misc]
    """The schedule runs through in the minutes there are, and validation does not count."""

    order = 55  # after the recorder, before the scheduler
    run_valid = True

    def __init__(self, journal: Journal, larger: DataLoaders | None) -> None:
        self.journal, self.larger = journal, larger

    def before_epoch(self) -> None:
        """Photos grow between epochs."""
        if self.larger is not None and self.journal.progress >= LARGE_FROM:
            self.learn.dls, self.larger = self.larger, None

    def before_batch(self) -> None:
        """What schedulers go by is the share of the minutes that is over."""
        if self.training:
            self.learn.pct_train = min(1.0, self.journal.progress)

    def after_batch(self) -> None:
        """Count photos; end with the minutes."""
        if self.training:
            self.journal.images += len(self.yb[0])
            if self.journal.progress >= 1:
                raise CancelFitException

    def before_validate(self) -> None:
        """The clock stands still."""
        self.journal.pause()

    def after_epoch(self) -> None:
        """It goes on."""
        self.journal.validated(float(self.learn.final_record[-1]))
        self.journal.go_on()


class CpuAutocast(Callback):  # type: ignore[misc]
    """bf16 on the CPU, which fastai's own `to_bf16` leaves out."""

    order = 10

    def before_batch(self) -> None:
        """From the network's first layer on."""
        self.context = torch.autocast("cpu", torch.bfloat16)
        self.context.__enter__()

    def after_pred(self) -> None:
        """The loss is computed in single precision."""
        self.learn.pred = to_float(self.pred)

    def after_loss(self) -> None:
        """The backward pass follows the forward one by itself."""
        self.context.__exit__(None, None, None)


def batches(trial: Trial, size: int) -> DataLoaders:
    """Photos at `size` from the folders train and val, which lie side by side."""
    if not trial.best:
        prepare: dict[str, Any] = {"item_tfms": Resize(size)}
    else:
        scaled = Normalize.from_stats(*imagenet_stats)
        prepare = {"item_tfms": [RandomResizedCrop(size, min_scale=0.35), FlipItem(0.5)], "batch_tfms": scaled}
    names = {"train": trial.train.name, "valid": trial.val.name}
    return ImageDataLoaders.from_folder(trial.train.parent, bs=64, **names, **prepare)


def learner(trial: Trial, dls: DataLoaders) -> Learner:
    """The documented beginning, or the pieces of fastai's Imagenette and Imagewoof records on a small network."""
    if not trial.best:
        return vision_learner(dls, resnet18, pretrained=False, metrics=accuracy)
    net = xresnet18(n_out=dls.c)
    loss = LabelSmoothingCrossEntropy()
    cbs = [ChannelsLast(), *([CpuAutocast()] if has_bf16() else [])]
    return Learner(dls, net, loss_func=loss, opt_func=ranger, metrics=accuracy, cbs=cbs)


def main() -> None:
    """Train and test."""
    trial = Trial.asked()
    trial.seed_everything()
    journal = Journal(trial)
    size = trial.size or (96 if trial.best else 128)
    learn = learner(trial, batches(trial, size * 2 // 3 if trial.best else size))
    clock = ByTheClock(journal, batches(trial, size) if trial.best else None)
    with learn.no_bar(), learn.no_logging():
        if trial.best:
            learn.fit_flat_cos(ENDLESS, 4e-3, cbs=clock)
        else:
            learn.fit_one_cycle(ENDLESS, cbs=clock)
        journal.trained(("fastai",), size=size)
        journal.validated(float(learn.validate()[-1]))
        photos = get_image_files(trial.test)
        dl = learn.dls.test_dl(photos)
        found, _ = learn.tta(dl=dl) if trial.best else learn.get_preds(dl=dl)
    journal.predicted(list(learn.dls.vocab), zip(map(str, photos), found.tolist(), strict=True))


if __name__ == "__main__":
    main()
