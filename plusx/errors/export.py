"""Sentences about exported files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from plusx.errors import DataError, ModelError, UsageError

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


def none_readable(count: int) -> UsageError:
    """Not one of the photos to try it on can be read."""
    return UsageError(
        f"An export is tried on real photos, and of the {count:,} that were named or validated on none can be read; "
        "name others with --photos FOLDER.",
        code="no-photos-to-agree-on",
    )


def other_suffix(path: Path) -> UsageError:
    """`--out` would not be taken for an exported file."""
    return UsageError(f"--out is {path}, and an exported file is known by its ending .onnx; name it so.", code="suffix")


def int8_of_a_file(path: Path) -> UsageError:
    """`--int8` of a model file, which knows no labelled photos."""
    return UsageError(
        f"--int8 measures what is lost on the labelled validation photos of a run, and {path} is a model file alone; "
        "name the run folder.",
        code="int8-needs-a-run",
    )


def int8_without_photos(path: Path, which: str) -> DataError:
    """The photos of a run are gone, or it never had any of this kind."""
    return DataError(
        f"--int8 needs {which} photos, and those of {path} are not where they were, cannot be read, or are none; put "
        "them back, or export without --int8.",
        code="int8-without-photos",
    )


def int8_loses(n: int, lost: float, allowed: float) -> ModelError:
    """Eight bits are too few for this network."""
    return ModelError(
        f"With eight bits the model loses {100 * lost:.2f} % of accuracy on {n:,} validation photos, where "
        f"{100 * allowed:.1f} % are allowed; nothing was written. Export without --int8, or name other photos to "
        "calibrate by with --photos.",
        code="int8-loses",
    )


def external_data(path: Path) -> ModelError:
    """Part of an ONNX file is said to lie in another file, which may be any file of the reader."""
    return ModelError(
        f"{path} keeps part of its data in other files, which no exported file of plusx does, so it is not opened; "
        "export the model again.",
        code="external-data",
    )


def foreign_operators(path: Path, domains: Iterable[str]) -> ModelError:
    """An ONNX file asks for operators that ONNX does not define."""
    named = ", ".join(repr(name[:40]) for name in sorted(domains)[:3])
    return ModelError(
        f"{path} asks for operators of {named}, and exported files of plusx have only those of ONNX itself, so it is "
        "not opened; export the model again.",
        code="foreign-operators",
    )


def loops_within(path: Path) -> ModelError:
    """An ONNX file has operators that go through a graph again and again."""
    return ModelError(
        f"{path} holds loops, as exports made with onnxscript before 0.7.2 do, so it is not opened; export the model "
        "again.",
        code="foreign-operators",
    )


def programs_within(path: Path) -> ModelError:
    """An ONNX file brings functions or a graph for training."""
    return ModelError(
        f"{path} holds functions or a graph to train, which no exported file of plusx does, so it is not opened; "
        "export the model again.",
        code="foreign-operators",
    )


def changed_since(path: Path) -> ModelError:
    """The hash at the end of an exported file is not that of its bytes."""
    return ModelError(
        f"{path} is damaged: its bytes are not those that were exported; copy it again, or export the model again.",
        code="model-damaged",
    )


def computed_by_onnx(path: Path, device: str) -> UsageError:
    """A device that ONNX files are not computed on."""
    return UsageError(
        f"{path} is an exported file, which plusx computes on the CPU, and --device says {device}; leave it out, or "
        "use the model file.",
        code="device-of-onnx",
    )
