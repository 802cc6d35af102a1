"""Results of experiments as they might come out: for the tests of pages alone, never shipped."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from plusx.lab.results import Figure, Finding, Result, Table
from plusx.report.axes import Axis
from plusx.report.contours import Grid
from plusx.report.figures import WIDE, Bars, Series, Spread, Svg, grouped_bars, line_chart, over_seeds
from plusx.report.moving import dial, turning_surface
from plusx.report.surfaces import contour_plot, heat_map

ERROR = Axis("error", 0, 1, share=True)


def result(name: str = "degradation", *figures: str) -> Result:
    """An experiment with findings of every kind; `figures` are keys of `drawn`."""
    shown = drawn()
    return Result(
        name,
        name.capitalize(),
        "Do <more> layers make a network better?",
        "20,000 training and 2,000 test photos of 10 classes at 16 px; 1,200 steps of 128 photos; 3 seeds.",
        (
            Table(
                "Error at the end of training",
                ("layers", "parameters", "kind", "plain, training", "residual, training, after a long time of it"),
                (
                    ("20", "68,000", "a", "34.12 ± 0.50 %", "30.10 ± 0.30 %"),
                    ("56", "212,000", "b", "44.1 %", "none"),
                ),
            ),
        ),
        tuple(Figure(key, f"What to look for in {key}.", shown[key]) for key in figures or shown),
        (
            Finding("Deeper is 10.00 points higher (3 seeds).", "Higher all along (He et al. 2015, figure 1).", True),
            Finding("Deeper is 1.00 point higher.", "Lower (He et al. 2015, figure 6).", False, "Too few steps."),
            Finding("Seeds disagree.", "No over-fitting.", None),
        ),
        {"numbers": [1.0, 2.0]},
    )


@cache
def drawn() -> dict[str, Svg]:
    """One figure of every kind."""
    steps, names = range(0, 1_201, 30), ("plain, 8 layers", "plain, 20 layers", "plain, 56 layers")
    lines = []
    for colour, name in enumerate(names, start=1):
        runs = [[(step, 0.2 * colour + 0.3 * math.exp(-step / 300) + seed / 50) for step in steps] for seed in range(3)]
        lines += [over_seeds(name, runs, colour), over_seeds(f"{name}, training", runs, colour, dashed=True)]
    side = [float(v) for v in np.linspace(-1, 1, 13)]
    grid = Grid(side, side, [[0.1 + 4 * (x * x + y * y) + abs(math.sin(9 * x)) for x in side] for y in side])
    x, y, z = Axis("direction 1", -1, 1), Axis("direction 2", -1, 1), Axis("loss", 0.1, 10, log=True)
    alphas = [k / 10 for k in range(11)]
    dials = [
        Series(name, [(a, 0.9 - s * a) for a in alphas], c, dots=True)
        for c, (name, s) in enumerate((("plain56", 0.1), ("resnet56", 0.8)), start=1)
    ]
    bars = [Bars("plain", [Spread.of([0.3, 0.34]), None], 2), Bars("residual", [Spread.of([0.3]), Spread.of([0.25])])]
    return {
        "curves": line_chart("Error against steps", Axis("step", 0, 1_200), ERROR, lines, size=WIDE),
        "bars": grouped_bars("Final error", ERROR, ["20 layers", "56 layers"], bars, "depth"),
        "cells": heat_map(
            "Gradients", ["layer 1", "layer 55"], ["plain", "plain, norm"], [[1e-7, 1.0], [0.3, None]], z
        ),
        "contours": contour_plot("Loss", x, y, z, grid, [(0, 0, "trained")]),
        "turning": turning_surface("Loss in 3-D", x, y, z, grid),
        "dial": dial("Error against alpha", Axis("alpha", 0, 1), ERROR, dials, lambda a: f"F(x) + {a:g} x"),
    }
