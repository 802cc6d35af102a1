"""The user's wishes laid over a recipe: defaults < recipe < file < environment < `--set` < flags."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from plusx.config import Config
from plusx.data.split import parse_fractions
from plusx.errors import usage
from plusx.recipes.recipe import recipe

_PREFIX = "PLUSX_"
_NO_SETTINGS = ("PLUSX_CACHE_GB", "PLUSX_TRACE", "PLUSX_TOKEN")  # what cache, command line and service read themselves
MOST_RISK = 0.5
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}

ADAMW_SHARE = 0.01  # AdamW's steps do not shrink with the gradient: 0.001 where SGD with momentum takes 0.1
NETWORK = ("model", "width", "stem", "shortcut", "downsampling", "norm", "zero_init_residual")

Layer = tuple[str, dict[str, Any]]  # where the values come from, as named in an error; the values


def resolve(
    flags: Mapping[str, Any],
    *,
    sets: Sequence[str] = (),
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    made_for: Mapping[str, Any] | None = None,
) -> Config:
    """The complete configuration of a run. `flags` are Config fields, absent or None where not given.

    `made_for` are the settings that the weights to start from were made for: laid over the recipe, below all wishes.

    Raises UsageError that names the layer and the field for anything unknown or out of bounds.
    """
    layers = _layers(flags, sets, file, os.environ if environment is None else environment)
    for where, values in layers:
        _refuse_unknown(where, values)
    wished = {name: value for _, values in layers for name, value in values.items()}
    budgeted = _one_budget(layers, wished)
    try:
        config = Config.model_validate(_base(wished, made_for or {}) | budgeted)
    except ValidationError as error:
        raise _named_error(error, layers) from None
    if config.pad and config.crop_scale:
        raise usage.two_crops()
    if config.window is not None and config.sampling == "balanced":
        raise usage.balanced_window()
    if config.split:
        parse_fractions(config.split)  # a split that makes no sense is told before a photo is read
    return config


def _base(wished: Mapping[str, Any], made_for: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe, and over it what the weights were made for; of another model, only what is not of its network."""
    name = str(wished.get("recipe") or ("finetune" if wished.get("weights") else "fast"))
    model = wished.get("model") or made_for.get("model")
    if model != made_for.get("model"):
        made_for = {field: value for field, value in made_for.items() if field not in NETWORK}
    base = recipe(name, model, str(wished.get("scale") or "auto")).model_dump() | dict(made_for)
    if wished.get("optimizer") == "adamw" and base["learning_rate"] is not None:
        base |= {"learning_rate": ADAMW_SHARE * base["learning_rate"], "norm_bias_rate": 1.0}  # those are for SGD
    return base


def given(flags: Mapping[str, Any], sets: Sequence[str], file: Path | None) -> set[str]:
    """The settings named on the command line or in a file."""
    return {name for _, values in _layers(flags, sets, file, {}) for name in values}


def seconds(text: object) -> float:
    """A duration such as '90s', '10m', '2h' or a number of seconds, in seconds."""
    if isinstance(text, int | float):
        return float(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    if not match:
        raise usage.bad_duration(str(text))
    return float(match[1]) * _UNITS[match[2]]


def fraction(text: str) -> float:
    """A share such as '1%' or '0.01'."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value <= MOST_RISK:
        raise usage.bad_risk(text)
    return value


def _layers(flags: Mapping[str, Any], sets: Sequence[str], file: Path | None, env: Mapping[str, str]) -> list[Layer]:
    given = {name: value for name, value in flags.items() if value is not None}
    layers = [
        (str(file), _from_file(file) if file else {}),
        ("the environment", _from_environment(env)),
        ("--set", dict(_key_value(text) for text in sets)),
        ("the command line", given),
    ]
    for _, values in layers:
        if "time" in values and values["time"] is not None:
            values["time"] = seconds(values["time"])
        if isinstance(values.get("risk"), str) and values["risk"] != "auto":
            values["risk"] = fraction(values["risk"])
        if isinstance(values.get("weights"), os.PathLike):
            values["weights"] = os.fspath(values["weights"])
    return layers


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = str(getattr(error, "strerror", None) or str(error).splitlines()[0])
        raise usage.unreadable_file(path, why, "a YAML file of settings") from None
    if not isinstance(values, dict):
        raise usage.unreadable_file(path, "it holds no `name: value` lines", "a YAML file of settings")
    return {str(name): value for name, value in values.items()}


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    names = {_PREFIX + name.upper(): name for name in Config.model_fields}
    ours = {key: value for key, value in env.items() if key.startswith(_PREFIX) and key not in _NO_SETTINGS}
    for key in ours:
        if key not in names:
            raise usage.unknown_variable(key, (*names, *_NO_SETTINGS), _PREFIX)
    return {names[key]: _parsed(value) for key, value in ours.items()}


def _key_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise usage.not_key_value(text)
    return name.strip(), _parsed(value)


def _parsed(text: str) -> Any:
    """A value as YAML reads it; text that is no YAML stands for itself."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _refuse_unknown(where: str, values: Mapping[str, Any]) -> None:
    for name in values:
        if name not in Config.model_fields:
            raise usage.unknown_setting(name, where, Config.model_fields)


def _one_budget(layers: Sequence[Layer], wished: dict[str, Any]) -> dict[str, Any]:
    """The highest layer that names a budget decides; naming both in one layer is refused."""
    for _, values in reversed(layers):
        both = [name for name in ("time", "epochs") if values.get(name) is not None]
        if len(both) == 2:
            raise usage.time_and_epochs()
        if both:
            other = "epochs" if both[0] == "time" else "time"
            return wished | {other: None}
    return wished


def _named_error(error: ValidationError, layers: Sequence[Layer]) -> Exception:
    first = error.errors()[0]
    name = str(first["loc"][0])
    where = next((place for place, values in reversed(layers) if name in values), "the recipe")
    message = first["msg"].removeprefix("Value error, ")
    why = message[0].lower() + message[1:]
    return usage.bad_setting(name, first["input"], why, where)
