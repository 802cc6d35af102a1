"""The model card: what a model is, what it is for, how well it does, in one Markdown page (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plusx.metrics import percent
from plusx.model_file import Header
from plusx.report.page import seen
from plusx.report.story import Facts, Measured, Story
from plusx.trust.risk import share

USE = """```python
import plusx
model = plusx.load("model.safetensors")  # or: plusx predict model.safetensors PHOTO
print(model.predict("photo.jpg").answer)
```"""


def card(story: Story, header: Header) -> str:
    """The card of a run's model, after "Model Cards for Model Reporting", arXiv 1810.03993, section 4."""
    sections = (
        ("What it is", _what(header)),
        ("How to use it", iter([USE])),
        ("What it is for, and what it is not", _limits(header)),
        ("Figures", _figures(story)),
        ("How sure it is", _certainty(story)),
        ("Photos it was made from", _table(tuple(fact for fact in story.data if fact[0] != "where"))),
        ("Network and preprocessing", _table(story.model)),
        ("How it was trained", _table((*story.training, *story.machine))),
        ("What to know before relying on it", _advice(story)),
        ("Licence", iter(["To be filled in: the rights to the photos decide it, and plusx does not know them."])),
    )
    title = story.title.replace("Report of", "Model card of", 1)
    parts = [f"# {_plain(title)}", _plain(story.lead)]
    parts += [f"## {heading}\n\n" + "\n".join(body) for heading, body in sections]
    return seen("\n\n".join(parts)) + "\n"


def _what(header: Header) -> Iterator[str]:
    yield f"A network that answers, for one photo, which of {len(header.classes)} classes it shows:"
    yield _plain(", ".join(header.classes)) + f". Made by plusx {header.plusx}; one safetensors file, no pickle."


def _limits(header: Header) -> Iterator[str]:
    yield "For photos like those it was trained on, of exactly these classes. It finds the class of a whole photo,"
    yield "not where something is in it, nor how many there are."
    yield ""
    yield "- Another camera, season, country or way of cutting photos can make it worse than the figures below."
    if not header.novelty or header.novelty["threshold"] is None:
        yield "- It has no way to say that a photo shows none of its classes: it will name one of them all the same."
    else:
        yield '- It says "none of these" to what is unlike its training photos, misses some, and refuses some it knows.'
    yield "- Nothing was done to find or mend unequal treatment of people: do not let it decide about them."


def _figures(story: Story) -> Iterator[str]:
    if story.main is None:
        yield "Nothing was measured: the run had no validation photos."
        return
    yield _plain(story.main.where)
    yield ""
    yield "| photos | n | accuracy | 95 % interval | log loss | calibration error |"
    yield "|---|---|---|---|---|---|"
    yield from (_row(m) for m in (story.main, story.other) if m is not None)
    yield ""
    yield "| class | n | accuracy | precision |"
    yield "|---|---|---|---|"
    for name, c in story.main.figures["per_class"].items():
        yield f"| {_plain(name)} | {c['n']:,} | {_share(c['accuracy'])} | {_share(c['precision'])} |"


def _row(m: Measured) -> str:
    f = m.figures
    low, high = f["accuracy_ci95"]
    return (
        f"| {_plain(m.name)} | {f['n']:,} | {percent(f['accuracy'])} | {percent(low)} to {percent(high)} "
        f"| {f['log_loss']:.4f} | {percent(f['ece'])} |"
    )


def _certainty(story: Story) -> Iterator[str]:
    c, t, novelty = story.calibration, story.thresholds, story.novelty
    if c and c["ece_before"] is not None:
        yield f"- Probabilities are scaled by the temperature {c['temperature']:.3f} (n = {c['n']:,}): the calibration"
        yield f"  error was {percent(c['ece_before'])} before and {percent(c['ece_after'])} after."
    else:
        yield "- Probabilities are as the network gives them; no temperature was fitted."
    yield from _thresholds(t) if t else iter(['- It never says "unsure": no threshold was fitted.'])
    if novelty and novelty["threshold"] is not None:
        yield f'- "none of these" where the novelty ({novelty["score"]}) is above {novelty["threshold"]:.4g}.'


def _thresholds(t: Mapping[str, Any]) -> Iterator[str]:
    """The risk is promised for the classes that have a threshold, and for each alone."""
    fitted = [c for c in t["classes"] if c["threshold"] is not None]
    if fitted:
        told = ", ".join(f"{_plain(c['name'])} {_from(c['threshold'])}" for c in fitted)
        yield f'- "unsure" below these probabilities, so that at most {share(t["risk"])} of what is answered as one of'
        yield "  these classes is wrong, for each class alone"
        yield f"  (confidence {percent(t['confidence'], 0)}, n = {t['n']:,}):"
        yield f"  {told}."
    else:
        yield '- It never says "unsure".'
    if t.get("note"):
        yield f"  {_plain(t['note'])}"


def _from(threshold: float) -> str:
    return percent(threshold) if threshold else "always answered"


def _table(facts: Facts) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {_plain(value)} |" for name, value in facts)


def _advice(story: Story) -> Iterator[str]:
    for advice in story.advice:
        yield f"- **{_plain(advice.title)}.** {_plain(advice.said)}"
    if not story.advice:
        yield "Nothing in the figures calls for a warning."


def _share(value: object) -> str:
    return percent(float(value)) if isinstance(value, int | float) else "none"


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing else: names of classes and files hold any letter."""
    return "".join(f"\\{c}" if c in "\\|<>*_`[]#" else " " if c in "\r\n" else c for c in text)
