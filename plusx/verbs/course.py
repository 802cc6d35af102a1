"""What a run folder tells of a training: its course, its speed, and how long its steps took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plusx.config import Config
from plusx.durable import Log
from plusx.recipes.plan import Plan
from plusx.report.curves import Points
from plusx.report.story import Course, Speed
from plusx.run_folder import RunFolder

GROUPS = 60  # points of a training curve: a single batch is too noisy to be looked at
LAST = 0.1  # share of the logged steps that training accuracy at the end is the mean of

Records = Sequence[Mapping[str, Any]]


def course_of(run: RunFolder, plan: Plan, config: Config) -> Course:
    """Curves over epochs; training accuracy is left out where photos are mixed, for it would mean something else."""
    steps, validations = _history(run)
    mixed = bool(config.mixup or config.cutmix)
    return Course(
        loss=_grouped(steps, "loss", plan),
        accuracy=() if mixed else _grouped(steps, "accuracy", plan),
        rate=_points(steps, "rate", plan),
        validation_loss=_validated(validations, "log_loss", plan),
        validation_accuracy=_validated(validations, "accuracy", plan),
        validated=int(validations[-1]["validation"].get("n", 0)) if validations else 0,
        sizes=_sizes(plan),
    )


def final_accuracy(run: RunFolder, config: Config) -> tuple[float | None, int]:
    """Training accuracy, the mean of the last logged batches, and how many photos it is the mean of."""
    steps, _ = _history(run)
    if not steps or config.mixup or config.cutmix:
        return None, 0
    last = steps[-max(3, round(LAST * len(steps))) :]
    return float(np.mean([record["accuracy"] for record in last])), len(last) * config.batch_size


def validations(run: RunFolder) -> tuple[tuple[float, int], ...]:
    """(accuracy, n) of every validation, in order."""
    found = [record["validation"] for record in _history(run)[1]]
    return tuple((float(one["accuracy"]), int(one.get("n", 0))) for one in found)


def speeds_of(run: RunFolder, plan: Plan) -> tuple[Speed, ...]:
    """Images per second at every training size, medians over the logged steps."""
    by_size: dict[int, list[float]] = {}
    for record in _timing(run):
        by_size.setdefault(plan.size_at(record["step"] - 1), []).append(record["images_per_second"])
    return tuple(Speed(size, float(np.median(values)), len(values)) for size, values in sorted(by_size.items()))


def training_seconds(run: RunFolder) -> float | None:
    """About what the steps took: each logged step stands for those before it. None where nothing was logged."""
    total, before = 0.0, 0
    for record in _timing(run):
        total += (record["step"] - before) * record["seconds"]
        before = record["step"]
    return total if before else None


def _history(run: RunFolder) -> tuple[Records, Records]:
    """Records of steps and of validations."""
    records = list(Log(run.path / "history.jsonl").records())
    return [r for r in records if "loss" in r], [r for r in records if "validation" in r]


def _timing(run: RunFolder) -> Records:
    return list(Log(run.path / "timing.jsonl").records())


def _points(records: Records, name: str, plan: Plan) -> Points:
    return tuple((r["step"] / plan.steps_per_epoch, float(r[name])) for r in records)


def _grouped(records: Records, name: str, plan: Plan) -> Points:
    """Means of runs of neighbouring records."""
    points = np.array(_points(records, name, plan))
    groups = np.array_split(points, min(GROUPS, len(points))) if len(points) else []
    return tuple((float(g[:, 0].mean()), float(g[:, 1].mean())) for g in groups)


def _validated(records: Records, name: str, plan: Plan) -> Points:
    return tuple((r["step"] / plan.steps_per_epoch, float(r["validation"][name])) for r in records)


def _sizes(plan: Plan) -> tuple[tuple[float, int], ...]:
    """(epoch, px) from where on each size is trained."""
    marks: list[tuple[float, int]] = []
    for step in range(plan.last_step):
        size = plan.size_at(step)
        if not marks or marks[-1][1] != size:
            marks.append((step / plan.steps_per_epoch, size))
    return tuple(marks)
