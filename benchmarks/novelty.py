"""Which score tells photos of nothing known from those of the classes: ours beside those of pytorch-ood.

    python benchmarks/novelty.py RUN KNOWN STRANGE [--originals DATA] [--json FILE]

RUN is a finished run whose training photos are still there, KNOWN labelled photos that it never saw, STRANGE photos of
none of its classes. Scores are fitted on the training photos that the run itself remembers. They are compared first on
photos made from validation photos of kinds that no score was fitted on (patches shuffled, quarters enlarged), which is
what a choice may be made by, then on STRANGE, which none may. The threshold of each refuses 4 % of validation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pytorch_ood.detector import KNN, RMD, EnergyBased, ViM, fDBD
from sklearn.metrics import roc_auc_score

from plusx.classifier import Classifier
from plusx.data.negatives import quarters, shuffled
from plusx.data.source import Photo, walk
from plusx.engines.features import head_name, pooled_features
from plusx.engines.torch_engine import TorchEngine
from plusx.images.decode import BadPhoto
from plusx.images.pool import DecodePool
from plusx.metrics import interval95
from plusx.run_folder import open_run
from plusx.trust.novelty import REFUSED
from plusx.verbs import strangers
from plusx.verbs.labelled import split_photos
from plusx.verbs.neighbours import balanced

CURVE = (0.01, 0.02, 0.05, 0.1, 0.2)  # shares of the known photos refused

Pixels = npt.NDArray[np.uint8]
Scores = Mapping[str, Callable[[Pixels], npt.NDArray[np.float64]]]


def pixels_of(classifier: Classifier, photos: list[Photo]) -> Pixels:
    """Decoded photos [n, S, S, 3], in order; those that cannot be read are left out."""
    with DecodePool(classifier.header.preprocess) as pool:
        found = dict(pool.map([photo.source for photo in photos]))
    return np.stack([found[i] for i in range(len(photos)) if not isinstance(found[i], BadPhoto)])


def in_parts(compute: Callable[[Pixels], Any], pixels: Pixels) -> npt.NDArray[np.float32]:
    """What `compute` gives for batches of the pixels, together."""
    return np.concatenate([np.asarray(compute(pixels[i : i + 32])) for i in range(0, len(pixels), 32)])


@dataclass(frozen=True)
class Stored:
    """Decoded photos by position: of a run older than the score, it is fitted here as a training would."""

    pixels: Pixels

    def read(self, rows: npt.NDArray[np.int64]) -> Pixels:
        """The photos at `rows`."""
        return self.pixels[rows]


class Features:
    """Input and weights of the network's last layer, as the scores of others want them."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine
        self.head: Any = engine.network.get_submodule(head_name(engine.network))

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> torch.Tensor:
        def compute(some: Pixels) -> npt.NDArray[np.float32]:
            seen = pooled_features(self.engine.network, self.engine.images(some), self.engine.size)
            return np.asarray(seen.float().cpu().numpy())

        return torch.from_numpy(in_parts(compute, pixels))

    def logits(self, pixels: Pixels) -> torch.Tensor:
        """[n, C]."""
        weight, bias = self.head.weight.detach().float().cpu(), self.head.bias.detach().float().cpu()
        return self(pixels) @ weight.T + bias


def scores_of(classifier: Classifier, bank: Pixels, labels: npt.NDArray[np.int64]) -> Scores:
    """Every score by name, fitted on the bank; larger is stranger."""
    engine = classifier.engine
    assert isinstance(engine, TorchEngine)
    features = Features(engine)
    weight, bias = features.head.weight.detach().float().cpu(), features.head.bias.detach().float().cpu()
    x, y = features(bank), torch.from_numpy(labels)
    head = torch.nn.Linear(*weight.T.shape)
    head.load_state_dict({"weight": weight, "bias": bias})
    fitted = {
        "KNN (k = 50)": KNN(None, k=50).fit_features(x, y),
        "fDBD": fDBD(torch.nn.Identity(), head).fit_features(x, y),
        "relative Mahalanobis": RMD(None).fit_features(x, y),
        "ViM": ViM(None, d=weight.shape[1] // 2, w=weight, b=bias).fit_features(x, y),
    }
    scores: dict[str, Any] = {
        name: lambda p, d=detector: d.predict_features(features(p)).numpy() for name, detector in fitted.items()
    }
    scores["largest probability"] = lambda p: -features.logits(p).softmax(1).amax(1).numpy()
    scores["energy"] = lambda p: EnergyBased.score(features.logits(p)).numpy()
    scores["length of the features"] = lambda p: -features(p).norm(dim=1).numpy()
    looked = strangers.look(engine, Stored(bank), np.arange(len(bank)), 0)
    fitted_anew = classifier.discriminant or strangers.fit(engine, looked, 0)
    assert fitted_anew is not None, "a network of plusx"
    score = fitted_anew.score
    scores["discriminant (plusx)"] = lambda p: score(in_parts(lambda some: engine.described(some)[0], p))
    return scores


def enlarged_quarters(engine: TorchEngine, pixels: Pixels) -> Pixels:
    """The quarter of each photo where the network sees least, at the size of the photo."""
    cut = quarters(pixels, in_parts(lambda some: engine.described(some)[1], pixels)).quiet
    side = pixels.shape[1]
    return np.stack([np.asarray(Image.fromarray(q).resize((side, side), Image.Resampling.BILINEAR)) for q in cut])


def compare(scores: Scores, sets: Mapping[str, Pixels], strange: tuple[str, ...]) -> list[dict[str, Any]]:
    """One line per score: AUROC of each strange set against the known photos, and what a threshold refuses."""
    lines = []
    for name, score in scores.items():
        values = {which: np.asarray(score(pixels), dtype=np.float64) for which, pixels in sets.items()}
        threshold, line = np.quantile(values["validation"], 1 - REFUSED), {"score": name}
        for which in strange:
            sides = np.repeat([0, 1], [len(values["known"]), len(values[which])])
            line[f"auroc {which}"] = float(roc_auc_score(sides, np.concatenate([values["known"], values[which]])))
        at = np.quantile(values["known"], [1 - share for share in CURVE])
        line["curve"] = {str(share): float((values["strange"] > t).mean()) for share, t in zip(CURVE, at, strict=True)}
        for which in ("known", "strange", "originals"):
            if which in values:
                refused = int((values[which] > threshold).sum())
                ci = interval95(refused, len(values[which]))
                line[f"refused {which}"] = {"share": refused / len(values[which]), "ci95": ci, "n": len(values[which])}
        lines.append(line)
    return lines


def main() -> None:
    """Fit, score, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("known")
    parser.add_argument("strange")
    parser.add_argument("--originals")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    classifier, run = Classifier.load(wanted.run), open_run(wanted.run)
    photos = split_photos(run.read("run")["data"], run)
    training, validation = photos.rows("train"), photos.rows("val")
    rows = training[balanced(photos.labels(training), 0)]
    scores = scores_of(classifier, pixels_of(classifier, photos.photos(rows)), photos.labels(rows))
    sets = {"validation": pixels_of(classifier, photos.photos(validation))}
    sets["known"] = pixels_of(classifier, walk([wanted.known]))
    sets["strange"] = pixels_of(classifier, walk([wanted.strange]))
    if wanted.originals:
        sets["originals"] = pixels_of(classifier, walk([wanted.originals]))
    assert isinstance(classifier.engine, TorchEngine)
    sets["shuffled"] = shuffled(sets["validation"], 0)
    sets["quarters"] = enlarged_quarters(classifier.engine, sets["validation"])
    lines = compare(scores, sets, ("shuffled", "quarters", "strange"))
    for line in lines:
        told = [
            f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v['share']:.3f}"
            for k, v in line.items()
            if k not in ("score", "curve")
        ]
        print(f"{line['score']:24s} " + "  ".join(told))
    if wanted.json:
        wanted.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
