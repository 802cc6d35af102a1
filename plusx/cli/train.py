"""`plusx train DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from plusx.cli.flags import Decisions, Json, Quiet, Switch, Verbose, Whole

if TYPE_CHECKING:
    from plusx.verbs.seeds import Seeds


def train(
    *data: str,
    recipe: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    time: str | None = None,
    epochs: Whole | None = None,
    size: Whole | None = None,
    batch_size: Whole | None = None,
    split: str | None = None,
    skip_bad: Annotated[bool | None, Parameter(negative="")] = None,
    risk: str | None = None,
    seed: Whole | None = None,
    seeds: Whole | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    out: Path | None = None,
    resume: Switch = False,
    accept_changes: Switch = False,
    plan: Path | None = None,
    decisions: Decisions = None,
    config: Path | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Train a residual network on a folder of labelled photos.

    Without a budget, `--time 10m` on a CPU and `2m` on a GPU.

    Parameters
    ----------
    data
        Photos: a folder with one folder per class (or train/, val/, test/ of them), tar archives, a glob, or a CSV.
    recipe
        textbook, fast (the default), best, cifar, or finetune (the default with --weights).
    model
        A network of `plusx models`; the recipe's own, or that of --weights, where not given.
    weights
        Start from these: a .safetensors file, a run folder of plusx, or timm:NAME, which is downloaded.
    time
        How long the whole command may take, such as 90s, 10m or 2h.
    epochs
        How often to go through the training photos, instead of --time.
    size
        Final training size in pixels.
    batch_size
        Photos per step.
    split
        Percent for training, validation and test, such as 80/10/10; for DATA without such folders.
    skip_bad
        Train without the photos that cannot be read, instead of stopping.
    risk
        Share of errors among the answers that are no "unsure", such as 1%; what can be shown where not given.
    seed
        The one source of randomness.
    seeds
        Train so many runs that differ by their seed alone, one after another, and tell their spread; --time is of each.
    device
        Where to compute.
    out
        The run folder; runs/NAME-N where not given. With --seeds, the folder of the run folders.
    resume
        Continue the run in --out at the step after its last checkpoint.
    accept_changes
        With --resume, go on though photos of DATA came, went or were edited; the run then says that it is not exact.
    plan
        A plan.json to repeat.
    decisions
        A CSV of photos to leave out or relabel, as check writes and you edit it; may be given several times.
    config
        A YAML file of settings.
    set_
        Any other setting, as key=value; may be given several times.
    """
    from plusx.cli.live import Live
    from plusx.cli.run import STARTED
    from plusx.cli.terminal import console, document
    from plusx.errors.processes import seeds_together, told_by_first
    from plusx.launch import launched
    from plusx.verbs.seeds import is_of_seeds, train_seeds
    from plusx.verbs.train import train
    from plusx.verbs.wish import Wish

    flags = {
        "recipe": recipe,
        "model": model,
        "weights": weights,
        "time": time,
        "epochs": epochs,
        "size": size,
        "batch_size": batch_size,
        "split": split,
        "skip_bad": skip_bad,
        "risk": risk,
        "seed": seed,
        "device": device,
    }
    wish = Wish(flags, tuple(set_ or ()), config, plan, out, resume, tuple(decisions or ()), accept_changes)
    launch = launched()
    if launch.size > 1 and (seeds is not None or is_of_seeds(out)):
        raise told_by_first(seeds_together(launch.size), first=launch.first)
    with Live(console(quiet or json or not launch.first), verbose=verbose) as live:
        if seeds is not None or (resume and is_of_seeds(out)):
            return _ended(train_seeds(data, wish, seeds, on_event=live.show, started=STARTED), json=json)
        outcome = train(data, wish, on_event=live.show, started=STARTED)
    if json and launch.first:
        document(outcome.to_json())
    elif launch.first:
        live.ending(outcome)
    return 0


def _ended(seeds: Seeds, *, json: bool) -> int:
    """The runs of several seeds beside each other."""
    from plusx.cli.compare import show
    from plusx.cli.terminal import document, result

    if json:
        document(seeds.to_json())
    else:
        show(seeds.comparison)
        result(f"the runs are in {seeds.out}")
        if seeds.page is not None:
            result(f"curves: {seeds.page}")
    return 0
