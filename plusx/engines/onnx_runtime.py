"""ONNX Runtime, kept from telling anybody: the one place where it is imported."""

from __future__ import annotations

import importlib
import os
from typing import Any

from plusx.errors import export as sentences

SILENT = "ORT_DISABLE_TELEMETRY"  # environment variable


def onnx_runtime(part: str = "") -> Any:
    """The module `onnxruntime`, or its submodule `part`. Raises UsageError where it is not installed.

    Since 1.29 it reports names and hashes of models to its makers from Linux, too, and opens a database for that as
    soon as it is loaded. Only this variable of the environment prevents both; its own function comes too late.
    """
    os.environ[SILENT] = "1"
    try:
        return importlib.import_module(f"onnxruntime{part}")
    except ImportError:
        raise sentences.no_runtime() from None
