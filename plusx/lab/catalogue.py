"""Every experiment by name, in the order in which the story is told."""

from __future__ import annotations

from plusx.errors import lab as sentences

EXPERIMENTS = {
    "degradation": "What more layers do to plain networks and to their residual twins.",
    "signals": "Activations and gradients through depth, with and without batch norm and shortcuts.",
    "shattering": "How alike the gradients of neighbouring inputs are, against depth.",
    "landscape": "The loss surface around the minimum, as contours and in 3-D.",
    "surgery": "Blocks deleted and swapped in trained networks, and a dial in F(x) + alpha x.",
    "identity": "A block of zeros is the identity, so a trained network can be made deeper for nothing.",
    "family": "AlexNet, VGG-16, plain-34 and ResNets on the same photos.",
}
TOUR = "tour"
TOUR_SUMMARY = "The whole story on one page, with the results of this machine."
EVERY = "all"
EVERY_SUMMARY = "Every experiment one after another, then the tour."


def require(name: str, *others: str) -> None:
    """Raise UsageError unless `name` is an experiment or one of the `others` that may stand in its place."""
    known = (*EXPERIMENTS, *others)
    if name not in known:
        raise sentences.unknown_experiment(name, known)
