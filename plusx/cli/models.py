"""`plusx models [NAME]`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from plusx.cli.flags import Json


def models(
    name: Annotated[str | None, Parameter(name="NAME")] = None,
    /,
    *,
    classes: int = 2,
    size: int = 224,
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
    from plusx.cli.terminal import document, result, table
    from plusx.verbs.models import describe, list_models

    if name is None:
        names = list_models()
        if json:
            document({"models": list(names)})
        else:
            result("\n".join(names))
        return 0
    layers = describe(name, classes=classes, size=size)
    if json:
        document(layers.to_json())
    else:
        for line in table(layers.rows(), layers.header):
            result(line)
    return 0
