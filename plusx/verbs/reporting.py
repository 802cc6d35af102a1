"""The report and the model card of a run, from what its folder holds; and the report of a test on other photos."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from plusx.config import Config
from plusx.data.source import Photo
from plusx.data.split import NAMES, Row, read_split_csv
from plusx.durable import write_file
from plusx.errors import reports as sentences
from plusx.images.source import Source
from plusx.metrics import percent
from plusx.model_file import OURS, Header, read_header
from plusx.recipes.plan import Plan, read_plan
from plusx.report.advice import Evidence, advise
from plusx.report.card import card
from plusx.report.page import duration
from plusx.report.run_page import run_page
from plusx.report.story import Facts, Measured, Story
from plusx.run_folder import RunFolder
from plusx.tensor_file import contents
from plusx.verbs import course as courses
from plusx.verbs.answers import Answered, read_answers
from plusx.verbs.figures import exactness_lines
from plusx.verbs.labelled import read_skipped
from plusx.verbs.maps import Maps
from plusx.verbs.measured import Album, Doubts, Overlay, doubts, measured, without_photos
from plusx.verbs.recorded import config_of

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # counted by a norm, not learned

VALIDATED = "Measured on validation photos; the test split was not touched. plusx evaluate RUN tests."
UNTESTED = "Measured on validation photos; the run has no test split."
TESTED = "Measured on the test split, which neither training nor any choice has seen."


def write_pages(run: RunFolder, photos: Iterable[Photo], overlay: Overlay | None = None) -> str | None:
    """Write report.html and card.md of a finished run; returns a sentence where that failed, and never raises.

    `photos` are where the run's photos lie now; one that is not among them is named without its picture.
    """
    try:
        story = run_story(run, {photo.name: photo.source for photo in photos}, overlay)
        write_file(run.card, card(story, read_header(run.model)).encode("utf-8", "replace"))
        write_file(run.report, run_page(story).encode("utf-8", "replace"))
    except Exception as error:  # a page is never worth a run
        return sentences.unwritten(run.report, error)
    return None


def write_page_of_data(
    path: Path, maps: Maps, answered: Answered, photos: Iterable[Photo], tested: tuple[str, Sequence[str]]
) -> str | None:
    """Write the report of a model's answers to other photos; `tested` is what the model and the data are called.

    `maps` are those of the model. Returns a sentence where that failed, and never raises.
    """
    try:
        story = _story_of_data(maps, answered, {photo.name: photo.source for photo in photos}, tested)
        write_file(path, run_page(story).encode("utf-8", "replace"))
    except Exception as error:  # a page is never worth what was measured
        return sentences.unwritten_of_data(path, error)
    return None


def _story_of_data(
    maps: Maps, answered: Answered, sources: Mapping[str, Source], tested: tuple[str, Sequence[str]]
) -> Story:
    header, (name, roots) = read_header(maps.model), tested
    data = " ".join(roots)
    main = measured(data, f"Measured on {data}.", answered, header, Album(sources, header.preprocess, maps))
    return Story(
        title=f"{name} on {data}",
        lead=f"{len(answered.names):,} photos answered by a model that tells {_listed(header.classes)} apart.",
        main=main,
        model=_model_facts(header, maps.model),
        calibration=header.calibration,
        thresholds=header.thresholds,
        novelty=header.novelty,
        advice=advise(_evidence_of_data(main, doubts(answered), shlex.join(roots))),
    )


def _evidence_of_data(main: Measured, doubted: Doubts, data: str) -> Evidence:
    return Evidence(
        figures=main.figures,
        ece_by_chance=main.ece_by_chance,
        suspects=doubted[0],
        suspects_expected=doubted[1],
        data=data,
    )


def run_story(run: RunFolder, sources: Mapping[str, Source], overlay: Overlay | None = None) -> Story:
    """Everything the pages of a finished run tell; what the run's folder lacks is left out."""
    header, plan = read_header(run.model), read_plan(run.plan)
    config = config_of(run)
    skipped = tuple((name, why.reason) for name, why in read_skipped(run.path / "skipped.csv"))
    rows = [row for row in read_split_csv(run.split) if row.path not in {name for name, _ in skipped}]
    where = VALIDATED if any(row.split == "test" for row in rows) else UNTESTED
    main, other, doubts = _measured(run, header, where, Album(sources, header.preprocess, overlay))
    return Story(
        title=f"Report of {run.path.name or run}",
        lead=_lead(header, config, plan, rows),
        main=main,
        other=other,
        data=_data_facts(run, rows, config),
        model=_model_facts(header, run.model),
        training=_training_facts(run, config, plan),
        machine=tuple((name, str(value)) for name, value in run.read("environment").items()),
        course=courses.course_of(run, plan, config),
        speeds=courses.speeds_of(run, plan),
        calibration=header.calibration,
        thresholds=header.thresholds,
        novelty=header.novelty,
        skipped=skipped,
        advice=advise(_evidence(run, config, plan, rows, main, (doubts, len(skipped)))),
        notes=() if main else ("Nothing was measured: the run has no validation photos. `plusx evaluate` tests it.",),
    )


def _measured(
    run: RunFolder, header: Header, where: str, album: Album
) -> tuple[Measured | None, Measured | None, Doubts]:
    """What leads the page, what stands beside it, and the labels that are doubted; `where` says so of validation."""
    validation, test = read_answers(run.validation_answers), read_answers(run.test_answers)
    if test is not None:
        beside = without_photos("validation", where, validation, header) if validation else None
        return measured("test", TESTED, test, header, album), beside, doubts(test)
    if validation is None:
        return None, None, (0, 0.0)
    return measured("validation", where, validation, header, album), None, doubts(validation)


def _evidence(
    run: RunFolder,
    config: Config,
    plan: Plan,
    rows: list[Row],
    main: Measured | None,
    faults: tuple[Doubts, int],
) -> Evidence:
    accuracy, seen = courses.final_accuracy(run, config)
    budget, longer = _budget(config)
    return Evidence(
        figures=main.figures if main else None,
        ece_by_chance=main.ece_by_chance if main else None,
        train_accuracy=accuracy,
        train_photos_seen=seen,
        train_counts=Counter(row.label for row in rows if row.split == "train"),
        epochs=plan.last_step / plan.steps_per_epoch,
        budget=budget,
        longer=longer if plan.last_step != plan.most_steps else None,
        validations=courses.validations(run),
        stopped_early=plan.stalled_at is not None,
        suspects=faults[0][0],
        suspects_expected=faults[0][1],
        unreadable=faults[1],
        data=shlex.join(run.read("run")["data"]),
    )


def _budget(config: Config) -> tuple[str, str]:
    """The flag a run was bounded by, and the one that doubles it."""
    if config.epochs is not None:
        return f"--epochs {config.epochs}", f"--epochs {2 * config.epochs}"
    seconds = config.time or 0.0
    return f"--time {_flag(seconds)}", f"--time {_flag(2 * seconds)}"


def _flag(seconds: float) -> str:
    return f"{seconds / 60:g}m" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g}s"


def _lead(header: Header, config: Config, plan: Plan, rows: list[Row]) -> str:
    trained = sum(row.split == "train" for row in rows)
    return (
        f"{config.model} learned to tell {_listed(header.classes)} apart from {trained:,} photos, "
        f"each seen {plan.last_step / plan.steps_per_epoch:.1f} times."
    )


def _listed(classes: tuple[str, ...]) -> str:
    if len(classes) > 6:
        return f"{len(classes)} classes ({', '.join(classes[:4])}, …)"
    return f"{', '.join(classes[:-1])} and {classes[-1]}"


def _data_facts(run: RunFolder, rows: list[Row], config: Config) -> Facts:
    counts = Counter((row.split, row.label) for row in rows)
    told: list[tuple[str, str]] = [("where", " ".join(run.read("run")["data"])), ("photos", f"{len(rows):,}")]
    for split, name in zip(NAMES, ("training", "validation", "test"), strict=True):
        classes = {label: n for (where, label), n in sorted(counts.items()) if where == split}
        listed = ", ".join(f"{label} {n:,}" for label, n in list(classes.items())[:12])
        told.append((name, f"{sum(classes.values()):,} ({listed})" if classes else "none"))
    told.append(("split", config.split or "by DATA's own folders, or by size"))
    metrics = run.read("metrics")
    told.append(("fingerprint", metrics["data_fingerprint"]))
    told += [("changes", line) for line in exactness_lines(metrics)]
    return tuple(told)


def _model_facts(header: Header, model: Path) -> Facts:
    network = ", ".join(f"{name} {value}" for name, value in header.network.items() if name != "name")
    return (
        ("network", f"{header.network['name']}{f' ({network})' if network else ''}"),
        ("parameters", f"{parameters_of(model):,}"),
        ("looks at", f"{header.size or header.preprocess.crop} px, views {', '.join(header.views)}"),
        ("photos come as", f"short side {header.preprocess.resize} px, middle {header.preprocess.crop} px"),
        ("classes", ", ".join(header.classes)),
    )


def parameters_of(model: Path) -> int:
    """How many numbers the network in a model file learned, read off its header: no network is built for it."""
    tensors = contents(model).tensors.items()
    learned = (entry for name, entry in tensors if not name.startswith(OURS) and not name.endswith(BUFFERS))
    return sum(math.prod(entry.shape) for entry in learned)


def _training_facts(run: RunFolder, config: Config, plan: Plan) -> Facts:
    sizes = ", ".join(f"{percent(share, 0)} at {size} px" for share, size in plan.sizes)
    seconds = courses.training_seconds(run)
    scale = f", scale {config.scale}" if config.recipe == "fast" else ""
    facts = [
        ("recipe", config.recipe + scale),
        ("budget", _budget(config)[0]),
        ("steps", f"{plan.last_step:,} of {config.batch_size} photos, {plan.steps_per_epoch:,} make an epoch"),
        ("sizes", sizes),
        ("optimizer", f"{config.optimizer}, rate {config.learning_rate:g}, schedule {config.schedule}"),
        ("precision", config.precision),
        ("seed", str(config.seed)),
    ]
    if config.weights:
        facts.append(("started from", config.weights))
    if plan.stalled_at is not None:
        facts.append(("brought to its end", f"from step {plan.stalled_at:,} on, since validation stood still"))
    return (*facts, ("steps took", f"about {duration(seconds)}")) if seconds else tuple(facts)
