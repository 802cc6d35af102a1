"""`plusx models [NAME]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from plusx.cli.flags import Json, Whole

NETWORKS = ("network", "parameters", "smallest px")


def models(
    name: Annotated[str | None, Parameter(name="NAME")] = None,
    /,
    *,
    classes: Whole = 2,
    size: Whole = 224,
    json: Json = False,
) -> int:
    """List the networks, or print the layers of one.

    Parameters
    ----------
    name
        A network; all of them where not given.
    classes
        How many classes its last layer tells apart.
    size
        Height and width of the input, in pixels.
    """
    from plusx.cli.terminal import document
    from plusx.verbs.models import describe, networks

    if name is None:
        found = networks(classes)
        if json:
            document({"models": [vars(network) for network in found]})
        else:
            _print([[n.name, f"{n.parameters:,}", str(n.smallest)] for n in found], NETWORKS)
        return 0
    layers = describe(name, classes=classes, size=size)
    if json:
        document(layers.to_json())
    else:
        _print(layers.rows(), layers.header)
    return 0


def _print(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    from plusx.cli.terminal import result, table

    for line in table(rows, header):
        result(line)
