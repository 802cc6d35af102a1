"""One contender of `inference.py` in a process of its own: answers commands on standard input, one JSON line each.

    python benchmarks/contenders.py NAME MODEL PHOTOS WORK

Commands: {"do": "setup", ...} loads the network with settings (batch, workers, decoder), {"do": "predict"} answers for
all photos from their files and keeps the probabilities in WORK, {"do": "network"} computes noise without decoding.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2 import functional

from plusx import model_file
from plusx.engines.onnx_runtime import onnx_runtime
from plusx.engines.torch_engine import build
from plusx.engines.views import mean_probabilities
from plusx.images.preprocess import Preprocess
from plusx.images.source import Source

Pixels = npt.NDArray[np.uint8]
Answers = npt.NDArray[np.float32]
Compute = Callable[[Iterator[Pixels]], Iterator[Answers]]
THREADS = len(os.sched_getaffinity(0))


class Answering(nn.Module):
    """Pixels uint8 [n, S, S, 3] to probabilities [n, C]: what every runtime is given, views and scaling inside."""

    def __init__(self, network: nn.Module, views: tuple[str, ...], size: int) -> None:
        super().__init__()
        self.network, self.views, self.size = network, views, size

    def forward(self, pixels: Tensor) -> Tensor:
        """The mean of the views' probabilities."""
        return mean_probabilities(self.network, pixels.permute(0, 3, 1, 2).float(), self.views, self.size).float()


def network_of(model: model_file.ModelFile) -> Answering:
    """The network of a model file as PyTorch knows it, norms and all, in float32 and channels last."""
    header = model.header
    network = build(header.network, len(header.classes), header.preprocess.mean, header.preprocess.std).eval()
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in model.tensors.items()})
    size = header.size or header.preprocess.crop
    return Answering(network.to(memory_format=torch.channels_last), header.views, size).eval()


class Photos(Dataset[Tensor]):
    """The photos' pixels [S, S, 3], by Pillow or by torchvision, as `Preprocess` has them."""

    def __init__(self, paths: list[Path], preprocess: Preprocess, decoder: str) -> None:
        self.paths, self.size, self.crop = paths, preprocess.resize, preprocess.crop
        self.load = self._pillow if decoder == "pillow" else self._torchvision

    def __len__(self) -> int:
        """How many there are."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """The pixels of one photo."""
        return self.load(str(self.paths[index]))

    def _pillow(self, path: str) -> Tensor:
        with Image.open(path) as image:
            image.draft("RGB", (2 * self.size, 2 * self.size))
            photo = image.convert("RGB")
        width, height = self._resized(*photo.size)
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        small = photo.resize((width, height), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small.crop((left, top, left + self.crop, top + self.crop))))

    def _torchvision(self, path: str) -> Tensor:
        photo = decode_jpeg(read_file(path), ImageReadMode.RGB)
        small = functional.resize(photo, [self.size], antialias=True)
        return functional.center_crop(small, [self.crop, self.crop]).permute(1, 2, 0).contiguous()

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        short = self.size / min(width, height)
        return (self.size, int(height * short)) if width <= height else (int(width * short), self.size)


def filled(pixels: Pixels, batch: int) -> Pixels:
    """A last batch that is too small, filled up: fixed shapes are what compilers optimise for."""
    missing = batch - len(pixels)
    return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)]) if missing else pixels


class Contender:
    """A runtime behind PyTorch's DataLoader. `compute` is made by `prepare` for a batch size."""

    def __init__(self, name: str, model: Path, photos: Path, work: Path) -> None:
        self.name, self.work = name, work
        self.model_path, self.model = model, model_file.load(model)
        self.paths = sorted(path for path in photos.rglob("*") if path.is_file())
        self.batch, self.workers, self.decoder = 64, 2, "pillow"

    def setup(self, batch: int, workers: int, decoder: str) -> None:
        """Make `compute` for this batch size, and warm it up."""
        if (batch, workers, decoder) == (self.batch, self.workers, self.decoder) and hasattr(self, "compute"):
            return
        if batch != self.batch or not hasattr(self, "compute"):
            self.compute = self.prepare(batch)
        self.batch, self.workers, self.decoder = batch, workers, decoder
        self.network(0.1)

    def predict(self, count: int) -> dict[str, Any]:
        """Seconds for `count` photos from their files to probabilities, which are written to WORK."""
        paths = self.paths[:: max(1, len(self.paths) // count)][:count]
        started = time.perf_counter()
        answers = self.answers(paths)
        seconds = time.perf_counter() - started
        np.save(self.work / f"{self.name}.npy", answers)
        return {"n": len(paths), "seconds": seconds}

    def answers(self, paths: list[Path]) -> Answers:
        """Probabilities [n, C] in the order of `paths`."""
        photos = Photos(paths, self.model.header.preprocess, self.decoder)
        loader = DataLoader(photos, self.batch, num_workers=self.workers, prefetch_factor=4 if self.workers else None)
        batches = (filled(batch.numpy(), self.batch) for batch in loader)
        return np.concatenate(list(self.compute(batches)))[: len(paths)]

    def network(self, seconds: float) -> dict[str, Any]:
        """Photos and seconds of computing noise, without decoding, for about `seconds`."""
        size = self.model.header.preprocess.crop
        noise = np.random.default_rng(0).integers(0, 256, (self.batch, size, size, 3), np.uint8)
        started, count = time.perf_counter(), 0

        def batches() -> Iterator[Pixels]:
            while time.perf_counter() - started < seconds:
                yield noise

        for answer in self.compute(batches()):
            count += len(answer)
        return {"n": count, "seconds": time.perf_counter() - started}

    def prepare(self, batch: int) -> Compute:
        """The function that answers batches of exactly `batch` photos."""
        runtime, _, precision = self.name.partition(" ")
        return RUNTIMES[runtime](self, batch, precision)


class Plusx(Contender):
    """plusx itself: `Classifier.predict_many`, with its own workers and streams."""

    def prepare(self, batch: int) -> Compute:
        """The classifier, loaded once; `batch` is what its streams are given."""
        import plusx

        del batch

        self.classifier = plusx.load(self.model_path, precision=self.name.partition(" ")[2] or "auto")
        return lambda batches: (said.probabilities for _, said in self.classifier.engine.many(((), b) for b in batches))

    def network(self, seconds: float) -> dict[str, Any]:
        """In batches as large as `predict_many` makes them."""
        asked, self.batch = self.batch, min(self.batch, self.classifier.engine.most)
        try:
            return super().network(seconds)
        finally:
            self.batch = asked

    def answers(self, paths: list[Path]) -> Answers:
        """By the public method."""
        found: dict[int, list[float]] = {}
        sources = [Source(str(path)) for path in paths]
        for place, answer in self.classifier.predict_many(sources, workers=self.workers, batch_size=self.batch):
            found[place] = list(answer.probabilities.values())
        return np.array([found[place] for place in range(len(paths))], np.float32)


def one_by_one(answer: Callable[[Pixels], Answers]) -> Compute:
    """Batches computed one after the other."""
    return lambda batches: map(answer, batches)


def eager(contender: Contender, batch: int, precision: str) -> Compute:
    """PyTorch as it comes: inference mode, channels last, bf16 by autocast."""
    del batch
    return _torch(network_of(contender.model), precision)


def compiled(contender: Contender, batch: int, precision: str) -> Compute:
    """torch.compile with its weights frozen, which folds norms and packs weights; fixed shapes."""
    from torch._inductor import config

    config.freezing = True
    compute = _torch(torch.compile(network_of(contender.model), dynamic=False), precision)
    size = contender.model.header.preprocess.crop
    list(compute(iter([np.zeros((batch, size, size, 3), np.uint8)] * 2)))
    return compute


def _torch(network: Any, precision: str) -> Compute:
    torch.set_num_threads(THREADS)

    def answer(pixels: Pixels) -> Answers:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found: Answers = network(torch.from_numpy(pixels)).numpy()
        return found

    return one_by_one(answer)


def exported(contender: Contender, batch: int) -> Path:
    """The network as an ONNX file for batches of `batch`."""
    path = contender.work / f"network-{batch}.onnx"
    if not path.exists():
        size = contender.model.header.preprocess.crop
        example = torch.zeros((batch, size, size, 3), dtype=torch.uint8)
        program = torch.onnx.export(network_of(contender.model), (example,), dynamo=True, verbose=False)
        program.save(path)
    return path


def onnxruntime(contender: Contender, batch: int, precision: str) -> Compute:
    """ONNX Runtime on all cores, every optimisation on; its convolutions know float32 only."""
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    path = exported(contender, batch)
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    del precision
    return one_by_one(lambda pixels: session.run(None, {name: pixels})[0])


def openvino(contender: Contender, batch: int, precision: str) -> Compute:
    """OpenVINO with its THROUGHPUT hint and a queue of as many requests as it asks for."""
    import openvino as ov

    core = ov.Core()
    core.set_property({"CACHE_DIR": str(contender.work / "openvino")})
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, "bf16")}
    compiled_model = core.compile_model(str(exported(contender, batch)), "CPU", hints)

    def compute(batches: Iterator[Pixels]) -> Iterator[Answers]:
        found: dict[int, Answers] = {}
        queue = ov.AsyncInferQueue(compiled_model)
        queue.set_callback(lambda request, place: found.__setitem__(place, request.get_output_tensor().data.copy()))
        for place, pixels in enumerate(batches):
            queue.start_async({0: pixels}, place)
        queue.wait_all()
        yield from (found[place] for place in sorted(found))

    return compute


RUNTIMES = {"eager": eager, "compile": compiled, "onnxruntime": onnxruntime, "openvino": openvino}


def main() -> None:
    """Serve until standard input ends."""
    name, *where = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the runtimes print must not mix into the answers
    contender = (Plusx if name.startswith("plusx") else Contender)(name, *map(Path, where))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            found = getattr(contender, command.pop("do"))(**command) or {}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
