"""Weights that timm knows by name: looked up in its registry, fetched from the hub because somebody typed the name."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.errors import models as model_errors
from plusx.errors import transfer as sentences
from plusx.models.transfer import of_timm

PREFIX = "timm:"
FILE = "model.safetensors"


@dataclass(frozen=True)
class Published:
    """Weights on the hub: the repository, and the settings of the network they were made for."""

    repository: str
    settings: dict[str, Any]


def published(weights: str) -> Published:
    """What timm's registry says of `timm:NAME`; offline. Raises UsageError for what it does not know."""
    name = weights.removeprefix(PREFIX)
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise model_errors.missing_extra(weights, "timm") from None
    try:
        entry = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag it does not have
        entry = None
    if entry is None:
        raise sentences.unknown_name(name, [*timm.list_models(), *timm.list_pretrained()])
    if not entry.hf_hub_id or entry.hf_hub_filename or entry.custom_load == "hf":  # formats of their own
        raise sentences.none_published(name)
    settings: dict[str, Any] = {"model": of_timm(entry.architecture), "mean": entry.mean, "std": entry.std}
    if entry.fixed_input_size:
        settings |= {"size": entry.input_size[-1], "test_size": None, "sizes": ()}
    return Published(entry.hf_hub_id, settings)


def fetch(repository: str) -> Path:
    """The repository's safetensors file, from the hub's own cache on this disk or downloaded; never another file.

    Raises ModelError where it cannot be had.
    """
    hub = importlib.import_module("huggingface_hub")
    faults = importlib.import_module("huggingface_hub.errors")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # retries are told once, by our sentence
    try:
        return Path(hub.hf_hub_download(repository, FILE))
    except faults.LocalEntryNotFoundError as error:  # the hub was not reached
        raise sentences.no_answer(repository, _reason(error)) from None
    except faults.EntryNotFoundError:
        raise sentences.no_safetensors(repository) from None
    except (faults.HfHubHTTPError, faults.HFValidationError) as error:
        raise sentences.refused(repository, _reason(error)) from None
    except Exception as error:  # whatever its HTTP library raises
        raise sentences.no_answer(repository, _reason(error)) from None


def _reason(error: Exception) -> str:
    """The first sentence of an error, and of what caused it."""
    cause = error.__cause__ or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text.split(". ")[0].rstrip(".")[:200]
