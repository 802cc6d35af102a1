"""`plusx bench`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from plusx.cli.flags import Json, Quiet, Whole


def bench(
    *,
    recipe: str | None = None,
    model: str | None = None,
    size: Whole | None = None,
    batch_size: Whole | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    rounds: Annotated[Whole, Parameter(name="--rounds")] = 15,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure how fast this machine trains, against its own limits, and where the time goes.

    Matrix products, copies and the training step are timed in turn; nothing is read or written.

    Parameters
    ----------
    recipe
        Whose network, size and augmentation: textbook, fast (the default), best, cifar or finetune.
    model
        A network of `plusx models`; the recipe's own where not given.
    size
        Training size in pixels, all the way; the recipe's first one where not given.
    batch_size
        Photos per step.
    device
        Where to compute.
    rounds
        How often everything is timed; medians are printed.
    set_
        Any other setting, as name=value; may be given often.
    """
    from plusx.cli.terminal import console, counting, document, result
    from plusx.verbs.bench import bench

    flags = {"recipe": recipe, "model": model, "size": size, "batch_size": batch_size, "device": device}
    fixed = ("sizes=[]",) if size is not None else ()
    with counting(console(quiet or json), "rounds") as progress:
        figures = bench(
            {name: value for name, value in flags.items() if value is not None},
            sets=(*fixed, *(set_ or ())),
            rounds=rounds,
            on_progress=progress,
        )
    if json:
        document(figures.to_json())
    else:
        for line in figures.lines():
            result(line)
    return 0
