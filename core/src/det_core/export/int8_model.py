"""Static quantisation of a written ONNX model to int8, calibrated on images.

Letters: N images, H W size of the input.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import evolve

from det_core.data.loader import LoadedImage
from det_core.export.exported_header import ExportedHeader
from det_core.export.load_exported import runner_inputs
from det_core.export.onnx_model import named_arrays
from det_core.optional_packages import require

WEIGHTED = ("Conv", "Gemm", "MatMul")  # computed in int8
PASSED = ("Relu", "Clip", "MaxPool", "Resize", "Add", "Flatten")  # of int8 to int8
FOLLOWING = (*WEIGHTED, *PASSED, "RoiAlign")  # what takes int8


def write_int8(source: Path, target: Path, header: ExportedHeader, images: Iterable[LoadedImage]) -> None:
    """Write a model whose convolutions and linear layers compute in int8, with the metadata of the source.

    Activations are uint8 with one range each, the smallest to the largest value on the images; weights are int8 with a
    range for each output channel. The results of the last layers, which are scores and deltas, stay float32, as does
    what comes after them. The format is QuantizeLinear and DequantizeLinear around each layer, which ONNX Runtime and
    OpenVINO compile into integer operators.

    Args:
        source: a model of `write_onnx`.
        target: the file to write.
        header: of the source.
        images: transformed as at test time, which the ranges of activations are taken from.

    Raises:
        DetError: if a package of the extra `export` is missing.
    """
    onnx: Any = require("onnx", "quantisation", "export")
    require("onnxruntime", "quantisation", "export")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load(str(source))
    inner, last = _layers(model.graph)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # ONNX Runtime advises on the root logger to optimise the model first, which it is
    try:
        quantize_static(
            model,
            str(target),
            _Calibration(header, images),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=[*inner, *last],
            op_types_to_quantize=[*WEIGHTED, *PASSED],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        root.setLevel(level)
    quantised = onnx.load(str(target))
    _leave_float(quantised.graph, set(last))
    onnx.helper.set_model_props(quantised, evolve(header, precision="int8").to_metadata())
    onnx.save(quantised, str(target))


class _Calibration:
    """The inputs of a model, image by image."""

    def __init__(self, header: ExportedHeader, images: Iterable[LoadedImage]) -> None:
        self._inputs = (named_arrays(runner_inputs([image], header), header) for image in images)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs by name, or None."""
        return next(self._inputs, None)


def _layers(graph: Any) -> tuple[list[str], list[str]]:
    """The names of the nodes that compute in int8, in order: inner ones, and the layers that no other layer follows.

    What is not among them, such as the arithmetic of boxes, stays float32.
    """
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    maps: set[str] = set()  # tensors that layers have computed
    inner: list[str] = []
    last: list[str] = []
    for node in graph.node:
        passed = node.op_type in PASSED and all(name in maps for name in node.input[: _data_inputs(node)])
        if node.op_type not in WEIGHTED and not passed:
            continue
        maps.update(node.output)
        followed = any(user.op_type in FOLLOWING for name in node.output for user in users.get(name, ()))
        (inner if followed else last).append(node.name)
    return inner, last


def _data_inputs(node: Any) -> int:
    """How many of a node's inputs are tensors of layers; the others are its settings."""
    return 2 if node.op_type == "Add" else 1


def _leave_float(graph: Any, last: set[str]) -> None:
    """Remove what quantises the outputs of these nodes, which the nodes after them then take as they are."""
    kept = {name for node in graph.node if node.name in last for name in node.output}
    quantised = {
        node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in kept
    }
    restored = {node.output[0]: node for node in graph.node if node.input and node.input[0] in quantised}
    origin = {name: quantised[node.input[0]].input[0] for name, node in restored.items()}
    for node in [*quantised.values(), *restored.values()]:
        graph.node.remove(node)
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in origin:
                node.input[at] = origin[name]
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
