"""The loss around trained weights, with and without shortcuts: pictures, and numbers that say how sharp it is.

Li et al. 2018 (arXiv 1712.09913), figures 1 and 5 and section 6: without shortcuts the surface goes from nearly convex
to chaotic with depth, with them it hardly changes. A picture shows one plane of very many; curvature is measured beside
it, in all directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from plusx.lab import landscape_figures, landscape_findings
from plusx.lab.curvature import PRODUCTS, ends, filter_scales, hessian_product
from plusx.lab.laboratory import Lab
from plusx.lab.landscape_findings import Curvature, Kind, Measured, Surface
from plusx.lab.loss_surface import filters, mean_loss, offsets, random_direction, surface_row
from plusx.lab.network import Network
from plusx.lab.photos import Photos, shuffled
from plusx.lab.results import Result, seeds_said
from plusx.lab.twins import TWINS
from plusx.models.normalise import Normalised

DEPTHS = (20, 56)
FLAT = 1e-9  # less upward curvature counts as that: factors and shares are told, and there is none of zero


@dataclass(frozen=True)
class Detail:
    """How finely it is measured: `photos` of the training set, and a grid of `points` x `points` over the plane."""

    photos: int = 384
    points: int = 25


QUICK_DETAIL, FULL_DETAIL = Detail(), Detail(1024, 51)


def networks(lab: Lab) -> list[Network]:
    """Twins of both depths under every seed."""
    return [_network(kind, depth, seed) for seed in lab.seeds for kind, depth in kinds()]


def kinds() -> list[Kind]:
    """Plain and residual of both depths."""
    return [(kind, depth) for depth in DEPTHS for kind in TWINS]


def run(lab: Lab, detail: Detail | None = None) -> Result:
    """Train the twins, then measure the loss around their weights."""
    lab.trained(networks(lab))
    detail = detail or (FULL_DETAIL if lab.full else QUICK_DETAIL)
    seeds = [seed for seed in lab.seeds if not any(lab.diverged(_network(*kind, seed)) for kind in kinds())]
    photos = shuffled(lab.photos("train", detail.photos))
    curvatures = {kind: [_curvature(lab, _network(*kind, seed), photos) for seed in seeds] for kind in kinds()}
    surfaces = {kind: _surface(lab, _network(*kind, seed), photos, detail) for seed in seeds[:1] for kind in kinds()}
    measured = Measured(curvatures, surfaces, len(lab.classes))
    return Result(
        name="landscape",
        title="The loss landscape",
        question="How does the loss change around trained weights, and what does the shortcut do to that?",
        conditions=_conditions(lab, seeds, len(photos.labels), detail),
        tables=landscape_findings.tables(measured),
        figures=landscape_figures.figures(measured),
        findings=landscape_findings.findings(measured, lab.after),
        raw=_raw(measured),
    )


def _network(kind: str, depth: int, seed: int) -> Network:
    return Network(f"{kind}{depth}", seed)


def _curvature(lab: Lab, network: Network, photos: Photos) -> Curvature:
    """Loss and curvature where training ended, with running statistics and with those of each batch."""
    key = f"{lab.run(network).path.name}-both-ends-{len(photos.labels)}"
    return Curvature(**lab.remembered(key, lambda: _measured_curvature(lab, network, photos)))


def _measured_curvature(lab: Lab, network: Network, photos: Photos) -> dict[str, float]:
    lab.tell(f"the curvature at the weights of {network.name}")
    trained = lab.load(network)
    running = _at_the_weights(trained, photos)
    batch = _at_the_weights(trained.train(), photos)
    return running | {f"batch_{name}": value for name, value in batch.items()}


def _at_the_weights(network: Normalised, photos: Photos) -> dict[str, float]:
    weights = filters(network)
    product = hessian_product(network, weights, filter_scales(weights), photos.pixels, photos.labels)
    size = sum(weight.numel() for weight in weights.values())
    found = ends(product, size, photos.labels.device)
    loss = mean_loss(network, weights, photos.pixels, photos.labels)
    sharpness = max(found.largest, FLAT)
    downward, lower_error = (value / sharpness for value in (max(0.0, -found.least), found.errors[0]))
    ends_found = {"sharpness": sharpness, "error": found.errors[1], "downward": downward, "lower_error": lower_error}
    return {"loss": loss, **ends_found}


def _surface(lab: Lab, network: Network, photos: Photos, detail: Detail) -> Surface:
    """The plane row by row, then the line through its middle with the statistics of each batch."""
    lab.tell(f"the surface around {network.name}")
    trained = lab.load(network)
    weights, steps = filters(trained), offsets(detail.points)
    across, along = (random_direction(weights, network.seed, index) for index in (0, 1))
    key = f"{lab.run(network).path.name}-{detail.points}-{detail.photos}"
    plane = across, along

    def row(height: float) -> list[float]:
        return surface_row(trained, plane, height, steps, photos.pixels, photos.labels)

    rows = [lab.remembered(f"{key}-row-{i:02d}", partial(row, height)) for i, height in enumerate(steps)]
    trained.train()
    return Surface(tuple(steps), np.array(rows), tuple(lab.remembered(f"{key}-batch", partial(row, 0.0))))


def _conditions(lab: Lab, seeds: Sequence[int], n: int, detail: Detail) -> str:
    config = lab.config
    return (
        f"6n+2 networks of {config.width:g} times the published width at {config.size} px, option A, trained for "
        f"{lab.steps:,} steps of {config.batch_size} photos under {seeds_said(len(seeds))}. The loss is that of {n} "
        "training photos without augmentation, running statistics as in Li et al. The plane of two random, "
        f"filter-normalised directions, from -1 to 1, has {detail.points} x {detail.points} points and belongs to the "
        f"first seed. Curvature is by {PRODUCTS} products with the Hessian, every filter in units of its own norm."
    )


def _raw(measured: Measured) -> Mapping[str, Any]:
    return {
        f"{kind}{depth}": {
            "curvature": [vars(one) for one in measured.curvatures[kind, depth]],
            "surface": measured.surfaces[kind, depth].to_json() if (kind, depth) in measured.surfaces else None,
        }
        for kind, depth in measured.curvatures
    }
