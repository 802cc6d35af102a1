"""torchvision's reference recipe for classification, from what its references/classification documents."""

from __future__ import annotations

import folders
import loop
import torch
from torchvision.models import resnet18
from torchvision.ops._utils import split_normalization_params
from trial import Trial

PEER = {
    "name": "torchvision reference",
    "packages": [],
    "needs": [],
    "settings": {
        "default": "ResNet-18, 128 px, random crops of 8 % to all, flips, batches of 32, SGD 0.1, momentum 0.9, decay "
        "1e-4, rate a tenth after each third of the time",
        "best": "ResNet-18, 96 px, crops of 35 % to all, batches of 64, Nesterov, warm-up and cosine from 0.1, label "
        "smoothing 0.1, decay 5e-4 but none on norms, bf16, channels last, 2 workers, both mirror images tested",
    },
    "testing_minutes": {"default": 2, "best": 1},
}
STEP, EPOCHS = 30, 90  # the documented schedule, of which each run goes through all in the time it has


def default(trial: Trial, size: int) -> loop.Recipe:
    """The script without a flag, at a size for two cores."""
    train = folders.photos(trial.train, folders.cropped(size, 0.08), 32, shuffle=True, workers=loop.WORKERS)
    net = resnet18(num_classes=len(folders.named(train)[1]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def set_rates(progress: float) -> None:
        optimizer.param_groups[0]["lr"] = 0.1 * 0.1 ** min(EPOCHS // STEP - 1, int(progress * EPOCHS / STEP))

    return loop.Recipe(net, train, optimizer, set_rates)


def best(trial: Trial, size: int) -> loop.Recipe:
    """What pays in a short run of the script's newer flags: cosine, warm-up, smoothing, no decay of norms."""
    train = folders.photos(trial.train, folders.cropped(size, 0.35), 64, shuffle=True, workers=loop.WORKERS)
    net = resnet18(num_classes=len(folders.named(train)[1]))
    norms, others = split_normalization_params(net)
    groups = [{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": 5e-4}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    rates = loop.warm_then_cosine(optimizer, 0.1)
    return loop.Recipe(net, train, optimizer, rates, label_smoothing=0.1, sensible=True)


def main() -> None:
    """Train and test."""
    trial = Trial.asked()
    journal = loop.begun(trial)
    size = trial.size or (96 if trial.best else 128)
    recipe = best(trial, size) if trial.best else default(trial, size)
    prepare = folders.squeezed(size) if trial.best else folders.centred(size)
    loop.fit(recipe, journal, folders.photos(trial.val, prepare, 64))
    journal.trained(size=size)
    test = folders.photos(trial.test, prepare, 64)
    loop.test(recipe, journal, test, *folders.named(test))


if __name__ == "__main__":
    main()
