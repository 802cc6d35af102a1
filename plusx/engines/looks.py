"""The ways in which a network may look at one photo, by the names that a model file has for them. No torch."""

from __future__ import annotations

from typing import NamedTuple


class View(NamedTuple):
    """The middle of a photo, a share of each side, mirrored or not."""

    share: float
    mirrored: bool


# A random crop shows an animal larger than its whole photo does: "closer" is about as close as those of training
# (Touvron et al. 2019, arXiv 1906.06423, section 3).
VIEWS: dict[str, View] = {
    "identity": View(1.0, mirrored=False),
    "flip": View(1.0, mirrored=True),
    "closer": View(0.8, mirrored=False),
    "closer-flip": View(0.8, mirrored=True),
}
