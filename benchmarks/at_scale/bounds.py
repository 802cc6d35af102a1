"""Where each limit bites by itself: from how many GPUs, machines or photos on."""

from __future__ import annotations

import math

from at_scale.assumed import CORES_OF_A_MACHINE, GPUS_OF_A_MACHINE, IMAGENET, figure
from at_scale.projected import GATHERED, GPUS, INTERVAL, OF_A_GPU, OF_ALL, SUMMED, How, Own, losses_of, trained
from plusx.bench.scaling import Link, ring

INDEX = 75  # bytes a photo of an index of shards, names included
ORDER = 8  # bytes a photo of the order of an epoch
MEMORY = 64e9  # bytes of a machine for it
SCORED = 1e9  # photos
HALF = 0.5
SIDE = 224  # px

Bound = tuple[str, str, str]


def all_of(own: Own) -> list[Bound]:
    """Limit, from where on, why; the first to be met first."""
    found = [_requests(), _decoding(own), _network(), _windows(), _cache(own), _batch(), _gloo(own)]
    return [*found, _norms(own), _share(own), _failures(own), _writing(own), _index()]


def _requests() -> Bound:
    rate = figure("requests")
    hours = SCORED / rate / 3600
    why = f"{rate:,.0f} requests a second to a prefix: {hours:.0f} hours for 10^9 photos, however many GPUs there are"
    return "requests to the store", "one GPU, where a photo is an object", why


def _decoding(own: Own) -> Bound:
    rate = own.decoded * CORES_OF_A_MACHINE
    fast, slow = rate / figure("training, ResNet-18"), rate / figure("training, ResNet-50")
    where = f"{fast:.1f} GPUs a machine with ResNet-18, {slow:.1f} with ResNet-50"
    gpu = figure("decoding on a GPU")
    why = f"{CORES_OF_A_MACHINE} cores decode {rate:,.0f} photos/s; one A100 would {gpu:,.0f}, which plusx does not use"
    return "decoding", where, why


def _network() -> Bound:
    rate = figure("network of a machine") / figure("a photo")
    where = f"{rate / figure('training, ResNet-18'):.0f} GPUs a machine with ResNet-18"
    return "network that reads", where, f"{figure('network of a machine') / 1e9:.0f} GB/s are {rate:,.0f} photos/s"


def _windows() -> Bound:
    reading = IMAGENET * figure("a photo") / figure("network of a machine")
    computing = IMAGENET / (GPUS_OF_A_MACHINE * figure("training, ResNet-50"))  # of an epoch, by one machine
    machines = next(m for m in range(1, 1 << 16) if reading > computing / m)
    why = f"an epoch takes {reading:.0f} s to fetch, however many machines; a cache that holds all pays it once"
    return "windows of shards, of which every machine fetches all", f"{machines} machines with ResNet-50", why


def _cache(own: Own) -> Bound:
    """Every machine has a cache of its own, of pixels a third larger than the network sees."""
    seconds = IMAGENET / (own.decoded * CORES_OF_A_MACHINE)
    size = IMAGENET * math.ceil(SIDE * 4 / 3) ** 2 * 3
    why = (
        f"before the first step each decodes all of ImageNet: {seconds / 60:.1f} minutes, {size / 1e9:,.0f} GB of disk"
    )
    return "decoded photos, of which every machine keeps all", "two machines", why


def _batch() -> Bound:
    largest = figure("largest batch")
    why = f"no loss of accuracy is known up to {largest:,.0f} photos in a step; beyond, nothing is promised"
    return "photos in a step", f"{largest / OF_A_GPU:.0f} GPUs of {OF_A_GPU} photos", why


def _share(own: Own) -> Bound:
    counts = [2**k for k in range(3, 13)]
    gpus = next(n for n in counts if trained("ResNet-50", n, own, OF_ALL / n).efficiency < HALF)
    return (
        "too few photos for a GPU",
        f"{gpus} GPUs",
        f"of {OF_ALL:,} photos in a step {OF_ALL / gpus:.0f} are left for each",
    )


def _gloo(own: Own) -> Bound:
    """What the sum of each step cost when it was one between CPUs."""
    gpus = GPUS[1]
    seconds = ring(16, gpus, Link(own.message, math.inf))
    step = trained("ResNet-50", gpus, own, OF_A_GPU).one.seconds
    why = f"2 (W - 1) messages one after another, here of {own.message * 1e6:.0f} µs: {seconds * 1e3:.0f} ms"
    return "a message of each step that goes by gloo", f"{gpus} GPUs", f"{why}, beside a step of {step * 1e3:.0f} ms"


def _norms(own: Own) -> Bound:
    gpus = GPUS[-1]
    gathered, summed = (trained("ResNet-50", gpus, own, OF_A_GPU, How(norm=norm)).one for norm in (GATHERED, SUMMED))
    why = f"all gather from all: {gathered.norms * 1e3:.0f} ms of a step of {gathered.seconds * 1e3:.0f}"
    return "batch norm over all GPUs", f"{gpus} GPUs", f"{why}; summed up by a tree {summed.norms * 1e3:.0f} ms"


def _failures(own: Own) -> Bound:
    machines, losses = GPUS[-1] // GPUS_OF_A_MACHINE, losses_of("ResNet-50", own)
    hours = 1 / (figure("failures") * machines)
    lost = losses.share(machines, INTERVAL)
    why = (
        f"one in {hours:.0f} hours; with a checkpoint every {INTERVAL / 60:.0f} minutes {lost:.2%} of the time is lost"
    )
    return "failures of machines", f"{GPUS[-1]} GPUs", f"{why}; best were {losses.best_interval(machines) / 60:.0f}"


def _writing(own: Own) -> Bound:
    write = losses_of("ResNet-50", own).write
    why = f"{write:.1f} s for each checkpoint of ResNet-50 as fast as here, {write / INTERVAL:.2%} of the time"
    return "one process that writes checkpoints while the others wait", "any number", why


def _index() -> Bound:
    where = f"{MEMORY / INDEX:.1e} photos in {MEMORY / 1e9:.0f} GB".replace("e+0", "e")
    many = f"10^10 are {1e10 * INDEX / 1e9:,.0f} GB, and the order of an epoch {1e10 * ORDER / 1e9:,.0f} more"
    why = f"{INDEX} bytes a photo, mapped from disk: {many}; scoring has no index, and lists shards only"
    return "an index of photos to train on", where, why
