"""The short teaching program that plusx's recipe `textbook` holds (docs/textbook.md), as plain PyTorch."""

from __future__ import annotations

import folders
import loop
import torch
from torch import nn
from torchvision.models import resnet18
from trial import Journal, Trial

PEER = {
    "name": "textbook script",
    "packages": [],
    "needs": [],
    "settings": {
        "default": "ResNet-18 with a 3x3 stem and no pooling, 224 px, batches of 8, SGD at 0.01, weights saved every "
        "100 steps",
        "best": "the same network at 64 px: random crops, flips, batches of 32, Nesterov momentum, decay 5e-4, warm-up "
        "and cosine from 0.05, label smoothing 0.1, bf16, channels last, 2 workers, both mirror images tested",
    },
    "testing_minutes": {"default": 3, "best": 2},
    "tested": {"default": 400},  # 0.4 s each
}


def network(classes: int) -> nn.Module:
    """The author's ResNet-18: a 3x3 stem of stride 1, no max pool, the first weights of PyTorch's layers."""
    made: nn.Module = resnet18(num_classes=classes)
    made.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    made.maxpool = nn.Identity()
    for layer in made.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()
    return made


def default(trial: Trial) -> loop.Recipe:
    """The program as it stands."""
    train = folders.photos(trial.train, folders.centred(trial.size or 224), 8, shuffle=True)
    net = network(len(folders.named(train)[1]))

    def save(step: int) -> None:
        if step % 100 == 0:
            torch.save(net.state_dict(), trial.out / "weights.pt")

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    return loop.Recipe(net, train, optimizer, lambda _progress: None, after_step=save)


def best(trial: Trial) -> loop.Recipe:
    """What somebody who knows the field would make of it for two cores and a few minutes."""
    prepare = folders.cropped(trial.size or 64, 0.35)
    train = folders.photos(trial.train, prepare, 32, shuffle=True, workers=loop.WORKERS)
    net = network(len(folders.named(train)[1]))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rates = loop.warm_then_cosine(optimizer, 0.1)
    return loop.Recipe(net, train, optimizer, rates, label_smoothing=0.1, sensible=True)


def main() -> None:
    """Train and test."""
    trial = Trial.asked()
    journal: Journal = loop.begun(trial)
    recipe = best(trial) if trial.best else default(trial)
    size = trial.size or (64 if trial.best else 224)
    prepare = folders.squeezed(size) if trial.best else folders.centred(size)
    val = folders.photos(trial.val, prepare, 64) if trial.best else None  # the program does not validate
    loop.fit(recipe, journal, val)
    journal.trained(size=size)
    test = folders.photos(trial.test, prepare, 64)
    loop.test(recipe, journal, test, *folders.named(test))


if __name__ == "__main__":
    main()
