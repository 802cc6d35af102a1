"""timm, by the functions that its train.py is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import loop
import torch
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from trial import Trial

PEER = {
    "name": "timm",
    "packages": ["timm==1.0.31"],
    "needs": ["pyyaml", "huggingface_hub", "safetensors"],
    "settings": {
        "default": "resnet50, 128 px, batches of 128, SGD 0.05 (0.1 for 256), momentum 0.9, decay 2e-5, 5 of 300 "
        "epochs of warm-up, cosine, crops of 8 % to all, flips, colour jitter 0.4, label smoothing 0.1",
        "best": "resnet18, 96 px, batches of 64, SGD 0.1, decay 5e-4, a tenth of warm-up, cosine, crops of 35 % to "
        "all, flips, label smoothing 0.1, bf16, channels last, 2 workers, both mirror images tested",
    },
    "testing_minutes": {"default": 4, "best": 1},
}
EPOCHS = 300  # of the documented schedule, of which each run goes through all in the time it has
DEFAULT = {"batch_size": 128, "scale": (0.08, 1.0), "color_jitter": 0.4}
BEST = {"batch_size": 64, "scale": (0.35, 1.0), "color_jitter": None}


def photos(folder: Path, config: dict[str, Any], **flags: Any) -> loop.Batches:
    """Batches of the photos in class folders, prepared as `config` has it."""
    dataset = create_dataset("", root=str(folder))
    geometry = {name: config[name] for name in ("input_size", "mean", "std", "crop_pct")}
    workers = {"num_workers": loop.WORKERS, "use_prefetcher": False, "device": torch.device("cpu")}
    return create_loader(dataset, **geometry, **workers, **flags)  # type: ignore[no-any-return]


def recipe(trial: Trial, net: torch.nn.Module, config: dict[str, Any]) -> loop.Recipe:
    """The documented defaults, or the flags somebody would set for two cores and a few minutes."""
    flags = BEST if trial.best else DEFAULT
    train = photos(trial.train, config, is_training=True, interpolation="random", **flags)
    rate, decay = (0.1, 5e-4) if trial.best else (0.1 * 128 / 256, 2e-5)
    optimizer = create_optimizer_v2(net, opt="sgd", lr=rate, momentum=0.9, weight_decay=decay)
    warmup = EPOCHS // 10 if trial.best else 5
    scheduler, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=EPOCHS, warmup_epochs=warmup)

    def set_rates(progress: float) -> None:
        scheduler.step(progress * EPOCHS)

    return loop.Recipe(net, train, optimizer, set_rates, label_smoothing=0.1, sensible=trial.best)


def main() -> None:
    """Train and test."""
    trial = Trial.asked()
    journal = loop.begun(trial)
    size = trial.size or (96 if trial.best else 128)
    classes = sorted(folder.name for folder in trial.train.iterdir())
    net = create_model("resnet18" if trial.best else "resnet50", pretrained=False, num_classes=len(classes))
    config = resolve_model_data_config(net) | {"input_size": (3, size, size)}
    if trial.best:
        config["crop_pct"] = 1.0
    testing = {"batch_size": 64, "interpolation": config["interpolation"]}
    asked = recipe(trial, net, config)
    loop.fit(asked, journal, photos(trial.val, config, **testing))
    journal.trained(("timm",), size=size)
    test: Any = photos(trial.test, config, **testing)
    loop.test(asked, journal, test, test.dataset.filenames(absolute=True), classes)


if __name__ == "__main__":
    main()
