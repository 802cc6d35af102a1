"""`compare`: runs beside each other, and whether their difference is more than chance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plusx.config import Config
from plusx.errors import reports as sentences
from plusx.metrics import percent
from plusx.model_file import Header, read_header
from plusx.recipes.plan import read_plan
from plusx.report.comparison import Comparison, Contender, Group, Verdict
from plusx.run_folder import RunFolder, model_path, open_run
from plusx.trust.significance import LEVEL, discordant, holm, mcnemar, mean_and_spread, welch
from plusx.verbs import course as courses
from plusx.verbs.answers import Answered, read_answers
from plusx.verbs.recorded import config_of
from plusx.verbs.reporting import parameters_of

ENOUGH = 0.5  # of the photos of the smaller test: a test on fewer in common is not about these tests

NOT_SETTINGS = (  # they change no result but by chance
    *("seed", "split_seed", "device", "workers", "log_every", "checkpoint_every", "checkpoint_seconds"),
    *("rank_seconds", "save_weights_every", "show_every_step", "tensorboard"),
)


@dataclass(frozen=True)
class _Run:
    """A finished run with its figures on the photos that all runs are compared by."""

    path: Path
    name: str
    folder: RunFolder
    header: Header
    config: Config
    figures: Mapping[str, Any]
    answered: Answered | None


def compare(runs: Sequence[str | Path]) -> Comparison:
    """Runs by their test figures where `plusx evaluate` has tested all of them, else by validation.

    Pairs are compared on the photos both answered (McNemar's exact test); without common photos by their intervals.
    Runs that differ by their seed alone make a group, and groups of two or more are compared over their seeds (Welch's
    test). More than two comparisons are adjusted by Holm. Raises UsageError for fewer than two runs and for runs of
    other classes, ModelError where one is unfinished.
    """
    paths = list({Path(run).resolve(): Path(run) for run in runs}.values())
    if len(paths) < 2:
        raise sentences.too_few_runs(len(paths))
    tested = all((path / "test.json").exists() for path in paths)
    found = [_run(path, name, tested=tested) for path, name in zip(paths, _names(paths), strict=True)]
    for other in found[1:]:
        if other.header.classes != found[0].header.classes:
            raise sentences.other_classes(found[0].path, other.path)
    groups = _groups(found)
    return Comparison(
        basis=_basis(tested),
        runs=tuple(_contender(run, found) for run in found),
        groups=tuple(_group(members) for members in groups),
        verdicts=_verdicts(groups),
    )


def _basis(tested: bool) -> str:
    if tested:
        return "Measured on the test photos of each run, as `plusx evaluate` recorded them."
    return "Measured on validation, since not every run was tested; `plusx evaluate RUN` tests."


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    resolved = [path.resolve() for path in paths]
    depth = next((d for d in range(1, 9) if len({p.parts[-d:] for p in resolved}) == len(set(resolved))), 9)
    return ["/".join(path.parts[-depth:]) for path in resolved]


def _run(path: Path, name: str, *, tested: bool) -> _Run:
    header, folder = read_header(model_path(path)), open_run(path)
    config = config_of(folder)
    figures = folder.read("test") if tested else folder.read("metrics")["validation"]
    if figures is None:
        raise sentences.not_measured(path)
    answered = read_answers(folder.test_answers if tested else folder.validation_answers)
    return _Run(path, name, folder, header, config, figures, answered)


def _contender(run: _Run, all_runs: Sequence[_Run]) -> Contender:
    plan = read_plan(run.folder.plan)
    seconds = courses.training_seconds(run.folder)
    photos = plan.last_step * run.config.batch_size
    f = run.figures
    return Contender(
        name=run.name,
        seed=run.config.seed,
        n=f["n"],
        accuracy=f["accuracy"],
        accuracy_ci95=(f["accuracy_ci95"][0], f["accuracy_ci95"][1]),
        log_loss=f["log_loss"],
        ece=f["ece"],
        epochs=plan.last_step / plan.steps_per_epoch,
        images_per_second=photos / seconds if seconds else None,
        seconds=seconds,
        parameters=parameters_of(run.folder.model),
        settings=_differing(run, all_runs),
        course=courses.course_of(run.folder, plan, run.config),
    )


def _differing(run: _Run, all_runs: Sequence[_Run]) -> dict[str, Any]:
    others = [_settings(other) for other in all_runs]
    return {name: v for name, v in _settings(run).items() if any(other[name] != v for other in others)}


def _settings(run: _Run) -> dict[str, Any]:
    """What may make a difference besides chance: the settings, and the photos."""
    values = {n: v for n, v in run.config.model_dump(mode="json").items() if n not in NOT_SETTINGS}
    return values | {"photos": run.header.data_fingerprint[:12]}


def _groups(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Runs with equal settings together, in the order of their first; a seed that a group has counts for itself.

    A run that is trained again under its seed, or copied, says nothing more about the chance of training.
    """
    groups: list[list[_Run]] = []
    for run in runs:
        home = next((group for group in groups if _settings(group[0]) == _settings(run) and _new_to(group, run)), None)
        if home is None:
            groups.append([run])
        else:
            home.append(run)
    return groups


def _new_to(group: Sequence[_Run], run: _Run) -> bool:
    return all(run.config.seed != other.config.seed for other in group)


def _group(members: Sequence[_Run]) -> Group:
    mean, spread = mean_and_spread([run.figures["accuracy"] for run in members])
    return Group(_group_name(members), tuple(run.name for run in members), mean, spread)


def _group_name(members: Sequence[_Run]) -> str:
    return members[0].name if len(members) == 1 else f"{members[0].name} ({len(members)} seeds)"


def _verdicts(groups: Sequence[Sequence[_Run]]) -> tuple[Verdict, ...]:
    pairs = list(itertools.combinations(groups, 2))
    found = [_pair(first, second) for first, second in pairs]
    tested = [i for i, one in enumerate(found) if one.p is not None]
    adjusted = dict(zip(tested, holm([one.p for one in found if one.p is not None]), strict=True))
    several = f", adjusted for {len(tested)} tests" if len(tested) > 1 else ""
    verdicts = []
    for i, ((first, second), one) in enumerate(zip(pairs, found, strict=True)):
        p = adjusted.get(i)
        differs = one.apart if p is None else p < LEVEL
        told = one.method if p is None else one.method + several
        verdicts.append(Verdict(_group_name(first), _group_name(second), one.difference, p, told, differs))
    return tuple(verdicts)


@dataclass(frozen=True)
class _Tested:
    """A pair before adjustment: the second's accuracy less the first's on the photos that the test is made on.

    `p` is None where no test could be made, and `apart` then says whether the intervals lie apart.
    """

    difference: float
    p: float | None
    method: str
    apart: bool = False


def _pair(first: Sequence[_Run], second: Sequence[_Run]) -> _Tested:
    if len(first) > 1 and len(second) > 1:
        accuracies = [[run.figures["accuracy"] for run in group] for group in (first, second)]
        method = f"Welch's test over {len(first)} and {len(second)} seeds"
        return _Tested(_mean_difference(*accuracies), welch(*accuracies), method)
    singles = [_single(a, b) for a in first for b in second]
    return singles[0] if len(singles) == 1 else _one_with_seeds(singles)


def _one_with_seeds(singles: Sequence[_Tested]) -> _Tested:
    """A run against every seed of a group: it differs from the group where it does from each, all the same way."""
    difference = float(np.mean([one.difference for one in singles]))
    one_way = len({np.sign(one.difference) for one in singles}) == 1
    if any(one.p is None for one in singles):
        apart = one_way and all(one.apart if one.p is None else one.p < LEVEL for one in singles)
        return _Tested(difference, None, f"{len(singles)} pairs by their intervals", apart)
    told = f"McNemar's tests with each of {len(singles)} seeds"
    if not one_way:
        return _Tested(difference, 1.0, f"{told}, which differ in their direction")
    return _Tested(difference, max(one.p for one in singles if one.p is not None), f"the largest of {told}")


def _single(first: _Run, second: _Run) -> _Tested:
    right = _on_common_photos(first, second)
    if right is None:
        difference = second.figures["accuracy"] - first.figures["accuracy"]
        return _Tested(difference, None, *_by_intervals(first, second))
    alone = discordant(*right)
    told = f"McNemar's test on {len(right[0]):,} common photos, {alone[0]:,} and {alone[1]:,} right in one alone"
    return _Tested((alone[1] - alone[0]) / len(right[0]), mcnemar(*alone), told)


def _mean_difference(first: Sequence[float], second: Sequence[float]) -> float:
    return mean_and_spread(second)[0] - mean_and_spread(first)[0]


def _on_common_photos(first: _Run, second: _Run) -> tuple[Any, Any] | None:
    """Which of the photos that both answered each got right; None where they are too few, or nobody wrote them down.

    Under another seed a split holds other photos; the few in common say little, and the rest nothing of each other.
    A photo counts once however often it lies in a folder, and not where the runs know it under two labels.
    """
    if first.answered is None or second.answered is None:
        return None
    one, two = (_right_by_photo(run.answered) for run in (first, second) if run.answered is not None)
    common = sorted(one.keys() & two.keys())
    if len(common) < ENOUGH * min(len(one), len(two)):
        return None
    return np.array([one[key] for key in common]), np.array([two[key] for key in common])


def _right_by_photo(answered: Answered) -> dict[tuple[str, str], bool]:
    """Whether the likeliest class is the label, by (SHA-256, label)."""
    labels = [answered.classes[label] for label in answered.labels]
    photos = zip(answered.hashes, labels, strict=True)
    return dict(zip(photos, (~answered.wrong).tolist(), strict=True))


def _by_intervals(first: _Run, second: _Run) -> tuple[str, bool]:
    (low1, high1), (low2, high2) = (run.figures["accuracy_ci95"] for run in (first, second))
    apart = low1 > high2 or low2 > high1
    spans = f"{percent(low1)} to {percent(high1)} and {percent(low2)} to {percent(high2)}"
    return f"too few photos in common, so by the 95 % intervals, {spans}", apart
