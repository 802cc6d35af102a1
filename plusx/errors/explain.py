"""Sentences about explaining an answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from plusx.errors import DataError, ModelError, UsageError, did_you_mean


def no_head() -> UsageError:
    """The network ends in no fully connected layer."""
    return UsageError(
        "This network has no fully connected layer at its end, so it has no features to compare photos by; "
        "expected one of `plusx models`.",
        code="no-head",
    )


def no_convolution(name: str) -> UsageError:
    """Grad-CAM needs maps."""
    return UsageError(
        f"{name} has no convolution whose maps could be explained; use --method occlusion, which needs none.",
        code="no-convolution",
    )


def no_pooled_head(name: str) -> UsageError:
    """Class-activation maps need global average pooling and one linear layer."""
    return UsageError(
        f"{name} does not end in global average pooling and one fully connected layer, which --method cam needs; "
        "use --method grad-cam, or auto.",
        code="no-pooled-head",
    )


def no_gradients() -> UsageError:
    """Grad-CAM of an exported file."""
    return UsageError(
        "An exported file gives no gradients, which --method grad-cam needs; use auto, or name the model.safetensors "
        "or the run folder it was made from.",
        code="no-gradients",
    )


def no_evidence(name: str) -> UsageError:
    """Class-activation maps of an exported file whose graph gives none."""
    return UsageError(
        f"{name} does not end in global average pooling and one fully connected layer, which --method cam needs; "
        "use --method occlusion, or auto.",
        code="no-pooled-head",
    )


def unknown_class(name: str, known: Iterable[str]) -> UsageError:
    """The class to explain is none of the model's."""
    known = tuple(known)
    return UsageError(
        f"The model knows no class {name!r}; it knows {', '.join(known)}.{did_you_mean(name, known)}",
        code="unknown-class",
    )


def unknown_method(name: str, known: Iterable[str]) -> UsageError:
    """There is no such way to explain."""
    known = tuple(known)
    return UsageError(
        f"There is no method {name!r}; the methods are {', '.join(known)}.{did_you_mean(name, known)}",
        code="unknown-method",
    )


def picture_exists(path: Path) -> UsageError:
    """The picture's usual name is taken, and nothing is overwritten unasked."""
    return UsageError(
        f"{path} exists already; name the picture to write with --out, which replaces it, or move that file away.",
        code="picture-exists",
    )


def no_picture(path: Path) -> UsageError:
    """The picture would have another format than PNG."""
    return UsageError(f"--out {path} should end in .png: the explanation is a PNG.", code="not-a-png")


def too_few_photos(n: int, place: str, least: int) -> DataError:
    """Not enough photos to test maps on."""
    return DataError(
        f"{place} holds {n} photos that can be read, and testing maps needs at least {least}; name more photos.",
        code="too-few-photos",
    )


def bad_count(n: int, least: int) -> UsageError:
    """`--sanity` of too few photos."""
    return UsageError(f"--sanity is {n} and must be at least {least} photos.", code="bad-sanity")


def one_image_only(name: str) -> UsageError:
    """A flag of one explanation, beside `--sanity`."""
    return UsageError(f"{name} is for one photo, and --sanity tests many; leave one out.", code="one-image-only")


def folder_given(path: Path) -> UsageError:
    """A folder where one photo was expected."""
    return UsageError(
        f"{path} is a folder, and explain takes one photo; name a photo in it, or add --sanity 200 to test the maps "
        "of many.",
        code="folder-given",
    )


def damaged_neighbours(path: Path, why: str) -> ModelError:
    """neighbours.safetensors is not what was written."""
    return ModelError(f"{path} is damaged: {why}; remove it to explain without neighbours.", code="neighbours-damaged")
