"""The settings that a run recorded, also one of a version that had fewer."""

from __future__ import annotations

from pydantic import ValidationError

from plusx.config import Config
from plusx.errors import model_file as sentences
from plusx.run_folder import RunFolder


def config_of(run: RunFolder) -> Config:
    """The settings in config.yaml; those that came later have their defaults. Raises ModelError where it is damaged."""
    try:
        return Config.model_validate(run.read_config())
    except ValidationError as error:
        first = error.errors()[0]
        raise sentences.damaged(run.path / "config.yaml", f"{first['loc'][0]}: {first['msg']}") from None
