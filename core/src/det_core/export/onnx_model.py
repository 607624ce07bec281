"""ONNX models of detectors: writing, reading.

Letters: N images, H W size of the input.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from det_core.errors import DetError
from det_core.export.exported_header import ExportedHeader
from det_core.export.padded_detector import AXES
from det_core.optional_packages import require

LARGEST = 2**31  # bytes of a constant that is computed once


def write_onnx(program: ExportedProgram, header: ExportedHeader, file: Path) -> None:
    """Write a traced detector as an ONNX model, with the header as its metadata.

    Raises:
        DetError: if a package of the extra `export` is missing.
        NotExportableError: for an operator or option that ONNX does not have.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "exporting to ONNX", "export")
    from det_core.export.onnx_operators import OPSET, translations

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of axes, which are given below
        made = torch.onnx.export(
            program,
            input_names=list(header.inputs),
            output_names=list(header.outputs),
            opset_version=OPSET,
            custom_translation_table=translations(),
            verbose=False,
            dynamo=True,
        )
    assert made is not None
    _fold_constants(made.model)
    _name_axes(made.model)
    made.model.metadata_props.update(header.to_metadata())
    made.model.producer_name = "det"
    made.save(str(file), external_data=False)


def _fold_constants(model: Any) -> None:
    """Compute once what depends on weights alone, such as a convolution's weights times the factors of its norm.

    ONNX Runtime does so when it loads a model, but what quantises a model has to see the weights themselves.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    fold_constants(model, onnx_shape_inference=False, input_size_limit=LARGEST, output_size_limit=LARGEST)
    RemoveUnusedNodesPass()(model)


def _name_axes(model: Any) -> None:
    """Give the symbols of all shapes the names of `AXES`, in place of those of the tracer."""
    from onnx_ir import SymbolicDim

    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, name in AXES[value.name].items():
            names[str(value.shape[axis].value)] = name
    pattern = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in names))
    values = [*model.graph.inputs, *(out for node in model.graph.all_nodes() for out in node.outputs)]
    for value in values:
        for axis, size in enumerate(value.shape or ()):
            if isinstance(size, SymbolicDim) and size.value is not None:
                value.shape[axis] = SymbolicDim(pattern.sub(lambda found: names[found[0]], str(size.value)))


def named_arrays(inputs: Sequence[Tensor], header: ExportedHeader) -> dict[str, Any]:
    """The inputs of `PaddedDetector`, (N, 3, H, W) images and the rest, as arrays by name."""
    return {name: x.numpy() for name, x in zip(header.inputs, inputs, strict=True)}


class OnnxRunner:
    """Runs a written model in ONNX Runtime.

    providers: of ONNX Runtime, in order; by default CUDA if there is one and the device is a GPU, then the CPU.
    """

    def __init__(self, file: Path, device: torch.device, providers: Sequence[str] | None = None) -> None:
        runtime: Any = require("onnxruntime", "running an ONNX model", "export")
        if providers is None:
            preferred = ["CUDAExecutionProvider"] if device.type == "cuda" else []
            providers = [p for p in (*preferred, "CPUExecutionProvider") if p in runtime.get_available_providers()]
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = runtime.InferenceSession(str(file), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime has many kinds
            raise DetError(f"{file}: ONNX Runtime cannot read it ({type(error).__name__}: {error})") from None
        self.header = ExportedHeader.from_metadata(self.session.get_modelmeta().custom_metadata_map, str(file))

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Outputs of `PaddedDetector`."""
        found = self.session.run(None, named_arrays(inputs, self.header))
        return tuple(torch.from_numpy(x) for x in found)
