"""Plain and residual twins: what they are called, and their colours in every figure."""

from __future__ import annotations

TWINS = {"plain": "plain", "resnet": "residual"}  # by the stem of their names in the registry
COLOURS = {"plain": 2, "resnet": 1}
