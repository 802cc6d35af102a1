"""Sentences about exported files."""

from __future__ import annotations

from pathlib import Path

from plusx.errors import ModelError, UsageError

INSTALL = "pip install 'plusx[export]'"


def no_runtime() -> UsageError:
    """ONNX Runtime is not installed."""
    return UsageError(
        f"An ONNX file is computed by ONNX Runtime, which is not installed; install it with: {INSTALL}",
        code="no-onnx-runtime",
    )


def no_exporter() -> UsageError:
    """onnx or onnxscript is not installed."""
    return UsageError(
        f"Exporting needs onnx, onnxscript and onnxruntime, which are not all installed; install them with: {INSTALL}",
        code="no-exporter",
    )


def exported_already(path: Path) -> UsageError:
    """An ONNX file is to be exported."""
    return UsageError(
        f"{path} is an exported file already; export the model.safetensors or the run folder it was made from.",
        code="exported-already",
    )


def out_taken(path: Path) -> UsageError:
    """`--out` names something that exists."""
    return UsageError(
        f"{path} exists already, and exports are never overwritten; choose another --out, or move it away.",
        code="out-exists",
    )


def no_photos(path: Path) -> UsageError:
    """A model file does not know where its photos are."""
    return UsageError(
        f"An export is tried on real photos before it counts, and {path} does not say where any are; name some with "
        "--photos FOLDER.",
        code="no-photos-to-agree-on",
    )


def too_few_photos(count: int) -> UsageError:
    """`--count` asks for none."""
    return UsageError(
        f"--count is {count}, and an export has to agree on at least 1 photo; leave it out for 256.", code="too-few"
    )


def disagrees(count: int, flips: int, worst: float, allowed: float) -> ModelError:
    """The exported file answers otherwise than the model."""
    return ModelError(
        f"The exported file does not agree with the model on {count:,} photos: {flips} other answers, and "
        f"probabilities differ by up to {worst:.1e}, where {allowed:.0e} is allowed; nothing was written. This is a "
        "fault of plusx; report it with the name of the network.",
        code="export-disagrees",
    )


def computed_by_onnx(path: Path, device: str) -> UsageError:
    """A device that ONNX files are not computed on."""
    return UsageError(
        f"{path} is an exported file, which plusx computes on the CPU, and --device says {device}; leave it out, or "
        "use the model file.",
        code="device-of-onnx",
    )
