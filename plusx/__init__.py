"""plusx: H(x) = F(x) + x, from a folder of labelled photos to a residual network.

    model = plusx.load("runs/pets-fast-1")
    model.predict("photo.jpg").answer

The public names are imported when they are first used, so that `import plusx` loads no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from plusx.version import __version__

if TYPE_CHECKING:
    from plusx import recipes
    from plusx.classifier import load_classifier as load
    from plusx.errors import Error
    from plusx.lab.api import lab
    from plusx.models import create_model, list_models
    from plusx.verbs.api import check_labels, train
    from plusx.verbs.check import check
    from plusx.verbs.compare import compare
    from plusx.verbs.evaluate import evaluate
    from plusx.verbs.explain import explain
    from plusx.verbs.export import export
    from plusx.verbs.predict import predict

_PUBLIC = {
    "Error": ("plusx.errors", "Error"),
    "check": ("plusx.verbs.check", "check"),
    "check_labels": ("plusx.verbs.api", "check_labels"),
    "compare": ("plusx.verbs.compare", "compare"),
    "create_model": ("plusx.models", "create_model"),
    "evaluate": ("plusx.verbs.evaluate", "evaluate"),
    "explain": ("plusx.verbs.explain", "explain"),
    "export": ("plusx.verbs.export", "export"),
    "lab": ("plusx.lab.api", "lab"),
    "list_models": ("plusx.models", "list_models"),
    "load": ("plusx.classifier", "load_classifier"),
    "predict": ("plusx.verbs.predict", "predict"),
    "recipes": ("plusx.recipes", None),
    "train": ("plusx.verbs.api", "train"),
}

__all__ = [
    "Error",
    "__version__",
    "check",
    "check_labels",
    "compare",
    "create_model",
    "evaluate",
    "explain",
    "export",
    "lab",
    "list_models",
    "load",
    "predict",
    "recipes",
    "train",
]


class _Package(ModuleType):
    """Keeps a public name for its verb: importing the room `plusx.explain` would put the room in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and _PUBLIC.get(name, ("", None))[1]):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """The public names, each imported on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'plusx' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    found = importlib.import_module(module)
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
