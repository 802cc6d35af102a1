"""A model file as ONNX: one file, any number of photos at once, and everything that it says of itself as metadata."""

from __future__ import annotations

import warnings

import torch

from plusx.engines.onnx_engine import INPUT
from plusx.export.graph import Exportable
from plusx.model_file import ModelFile, metadata_of

OPSET = 20


def to_onnx(model: ModelFile) -> bytes:
    """The bytes of an ONNX file that answers as `model` does: `Exportable`, and the header under the key "plusx"."""
    network = Exportable(model).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        exported = torch.onnx.export(
            network,
            (example(model),),
            input_names=[INPUT],
            output_names=list(network.outputs),
            dynamic_shapes=({0: torch.export.Dim("photos", min=1)},),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert exported is not None, "a program, since nothing was written to a file"
    proto = exported.model_proto
    proto.producer_name, proto.graph.name = "plusx", "plusx"
    del proto.metadata_props[:]
    for key, value in metadata_of(model).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return bytes(proto.SerializeToString())


def example(model: ModelFile) -> torch.Tensor:
    """Two photos of the right shape: of one, the exporter would think that there is always one."""
    size = model.header.preprocess.crop
    return torch.zeros((2, size, size, 3), dtype=torch.uint8)
