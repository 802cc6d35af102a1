"""The configuration of a run: one frozen value, every field typed, bounded and explained.

Recipes (`plusx.recipes`) are functions that return a complete `Config`. Precedence, lowest first:
defaults < recipe < file < environment (`PLUSX_*`) < `--set` < flags.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first number should not be above the second")
    return pair


def _whole(shares: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    if shares and abs(sum(share for share, _ in shares) - 1) > 1e-6:
        raise ValueError("the shares of the steps should add up to 1")
    return shares


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1)]
Risk = Annotated[float, Field(gt=0.0, le=0.5)] | Literal["auto"]
Patience = Positive | Literal["auto"] | None
Pixels = Annotated[int, Field(ge=8, le=2048)]
AboveZero = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Padding = Annotated[float, Field(ge=0.0, le=0.5)]
Areas = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
Ratios = Annotated[tuple[AboveZero, AboveZero], AfterValidator(_ordered)]
Views = Annotated[tuple[Literal["identity", "flip", "closer", "closer-flip"], ...], Field(min_length=1)]
Sizes = Annotated[tuple[tuple[Share, Share], ...], AfterValidator(_whole)]


class Config(BaseModel):
    """What a run is, besides its photos. Sizes are in pixels, rates per step, durations in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    recipe: str = "fast"
    scale: Literal["auto", "small", "medium", "large", "huge"] = "small"  # of fast; "auto": what the time affords
    seed: Seed = 0
    split_seed: Seed | None = None  # which photos validate and test; None: as seed says

    # the network
    model: str = "resnet18"
    width: Annotated[float, Field(gt=0, le=4)] = 1.0  # multiplies every channel count
    stem: Literal["default", "7x7", "3x3", "whitened"] = "default"  # "default": what the model's name says
    shortcut: Literal["default", "projection", "identity", "none"] = "default"  # "none": the plain twin
    downsampling: Literal["default", "stride", "pool"] = "default"  # "pool": halve maps without skipping pixels
    norm: Literal["default", "batch", "none"] = "default"  # "none": a ResNet without norms; convolutions have biases
    zero_init_residual: bool = False
    weights: str | None = None  # to start from: a .safetensors file, a run folder of plusx, or timm:NAME

    # pixels: the short side goes to `size * resize_ratio`, the centre crop to `size`
    size: Pixels = 224  # the final training size
    test_size: Pixels | None = None  # None: the same as `size`
    resize_ratio: Annotated[float, Field(ge=1.0, le=2.0)] = 1.0
    sizes: Sizes = ()  # progressive: (share of the steps, fraction of `size`)
    views: Views = ("identity",)  # averaged at test time; also flip, closer, closer-flip
    mean: tuple[Fraction, Fraction, Fraction] = (0.485, 0.456, 0.406)
    std: tuple[AboveZero, AboveZero, AboveZero] = (0.229, 0.224, 0.225)

    # how long: epochs, or a time budget in seconds from which a plan is made
    epochs: Positive | None = None
    time: AboveZero | None = None
    max_epochs: Positive = 200
    batch_size: Positive = 64
    drop_last: bool = False
    merge_lone: bool = True  # a last batch of one photo joins the one before: batch norm has no spread over one value

    # the optimizer
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: AboveZero | None = None  # None: the model's own default
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay_norms_and_biases: bool = False
    norm_bias_rate: AboveZero = 1.0  # multiplies the rate on the biases of norms
    input_rate: Share = 1.0  # rate of the first layer as a share of the head's; geometric in between
    frozen: Fraction = 0.0  # share of the steps, at the beginning, in which only the head learns
    schedule: Literal["constant", "triangular", "cosine", "steps"] = "triangular"
    warmup: Fraction = 0.2  # share of the steps; of schedule "steps" a tenth of the rate all the way
    milestones: tuple[Fraction, ...] = ()  # of schedule "steps": the rate is divided by ten at these shares
    label_smoothing: Fraction = 0.0
    clip_norm: AboveZero | None = None
    accumulate: Positive = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # "auto": bf16 where the device has instructions for it
    batch_norm: Literal["synchronised", "per-process"] = "synchronised"  # of several processes: over all their photos
    average: Literal["none", "ema"] = "none"
    average_decay: Fraction = 0.999
    average_every: Positive = 1

    # augmentation (training only)
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    window: Positive | None = None  # archives whose photos are mixed with each other; None: all of DATA
    flip: Literal["none", "random", "alternating"] = "none"
    crop_scale: Areas | None = None  # share of the area a random-resized crop keeps, least and most
    crop_ratio: Ratios = (0.75, 1.3333)  # its width over its height, least and most
    pad: Padding = 0.0  # share of the side padded all round, then cropped back
    colour: Fraction = 0.0  # strength of brightness, contrast and saturation jitter
    erasing: Fraction = 0.0  # probability of erasing a rectangle
    policy: Literal["none", "trivial"] = "none"  # TrivialAugment
    mixup: Annotated[float, Field(ge=0)] = 0.0  # alpha of its Beta law
    cutmix: Annotated[float, Field(ge=0)] = 0.0

    # data
    validation: bool = True  # False: nothing is carved from the training photos, and nothing is chosen
    split: str | None = None  # "80/10/10": percent for train/val/test that DATA has no folders for; None: by size
    skip_bad: bool = False
    workers: Annotated[int, Field(ge=0, le=256)] | None = None  # decoding processes; None: one for each usable CPU

    # answers
    risk: Risk = "auto"  # share of errors among the answers that are no "unsure", such as 1%; "auto": what can be shown

    # the run
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    fast_math: bool = False
    validate_every: Positive = 1  # epochs
    keep: Literal["last", "best"] = "last"  # which weights become the model file
    patience: Patience = None  # validations without a better one before the end; "auto": 20, or half of all
    checkpoint_every: Positive = 100  # steps
    checkpoint_seconds: AboveZero = 60.0
    rank_seconds: AboveZero = 20.0  # of several processes: how long the others wait for the slowest one
    log_every: Positive = 100  # steps
    save_weights_every: Positive | None = None  # steps within an epoch; weights/epoch-EE-step-SSSSSS.safetensors
    show_every_step: bool = False  # loss at every step
    tensorboard: bool = False

    @property
    def splitting_seed(self) -> int:
        """What keys the split of DATA and the halves of validation."""
        return self.seed if self.split_seed is None else self.split_seed
