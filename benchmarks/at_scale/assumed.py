"""Figures that others have published, each with its source, which the projection puts into the model: none is ours."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET = 1_281_167  # photos, of the 2012 challenge's training set
EPOCHS = 90
GPUS_OF_A_MACHINE = 8
CORES_OF_A_MACHINE = 48  # of the 96 vCPU of a p4d.24xlarge, on which FFCV's figures were measured, two are a core
PIXELS_OF_FFCV = 0.75 * 160**2 + 0.25 * 192**2  # a photo, on average over its progressive sizes


@dataclass(frozen=True)
class Figure:
    """A number, its unit, and who says so."""

    value: float
    unit: str
    source: str


NVIDIA = "NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5/README.md"
FFCV = "libffcv/ffcv-imagenet, README.md"
TIMM = "huggingface/pytorch-image-models, results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv"
NCCL = "github.com/NVIDIA/nccl-tests"
TUNING = "what NCCL itself reckons with, NVIDIA/nccl, src/graph/tuning.cc"

FIGURES = {
    "training, ResNet-50": Figure(2470, "photos/s", f"one A100, mixed precision, 224 px: {NVIDIA}"),
    "training, ResNet-18": Figure(
        IMAGENET * 88 / (187.3 * 60) * PIXELS_OF_FFCV / 224**2,
        "photos/s",
        f"one A100, 88 epochs in 187.3 minutes at 160 and 192 px: {FFCV}; to 224 px by pixels, our arithmetic",
    ),
    "smallest step, ResNet-50": Figure(
        3 * 12.78e-3, "s", f"thrice the forward pass of one photo, V100, mixed precision: {NVIDIA}"
    ),
    "smallest step, ResNet-18": Figure(
        3 * 12.78e-3 * 20 / 53, "s", "the same by the number of convolutions, our arithmetic"
    ),
    "scoring, ResNet-50": Figure(5088.39, "photos/s", f"one RTX 4090, mixed precision, 224 px: {TIMM}"),
    "scoring, ResNet-18": Figure(18247.43, "photos/s", f"the same: {TIMM}"),
    "NVLink": Figure(200e9, "bytes/s", f"all-reduce among 8 A100 of one machine: {NCCL}/issues/149"),
    "NVLink, a message": Figure(0.85e-6, "s", f"0.47 µs, times 1.8 where there are more machines: {TUNING}"),
    "100 Gbit/s": Figure(12e9, "bytes/s", f"of one network card, by a maintainer of NCCL: {NCCL}/issues/119"),
    "400 Gbit/s": Figure(46e9, "bytes/s", f"of one network card, by a maintainer of NCCL: {NCCL}/issues/290"),
    "4 x 200 Gbit/s": Figure(96e9, "bytes/s", f"24 A100 in three machines: {NCCL}/issues/119"),
    "between machines, a message": Figure(5e-6, "s", f"of a tree; 2.7 µs of a ring: {TUNING}"),
    "NCCL, a collective": Figure(
        19.9e-6 - 2 * 5e-6,
        "s",
        f"8 bytes all-reduced by two A100 in two machines, less two messages: {NCCL}/issues/150",
    ),
    "decoding on a GPU": Figure(
        7830, "photos/s", "one A100, 551 x 676 px, torchvision: github.com/pytorch/vision/pull/8496; plusx does not"
    ),
    "a photo": Figure(147_897_477_120 / IMAGENET, "bytes", "ILSVRC2012_img_train.tar by the number of its photos"),
    "failures": Figure(
        419 / (54 * 24 * 16_384 / GPUS_OF_A_MACHINE),
        "a machine and hour",
        "419 unexpected interruptions of 16,384 GPUs in 54 days: The Llama 3 Herd of Models, arXiv 2407.21783",
    ),
    "restart": Figure(90.0, "s", "30 s until all have ended, as plusx promises, and a minute to start; a guess"),
    "requests": Figure(
        5500, "GET a second and prefix", "Amazon S3 User Guide, Best practices design patterns: optimizing performance"
    ),
    "network of a machine": Figure(
        12e9, "bytes/s", f"a card of 100 Gbit/s beside those between GPUs: {NCCL}/issues/119"
    ),
    "largest batch": Figure(8192, "photos", "no loss of accuracy with ResNet-50: Goyal et al. 2017, arXiv 1706.02677"),
}


def figure(name: str) -> float:
    """Its value."""
    return FIGURES[name].value
