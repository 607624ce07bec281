"""ONNX models of detectors in OpenVINO, whose int8 layers are faster than ONNX Runtime's on x86 processors.

Letters: N images, H W size of the input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from det_core.errors import DetError
from det_core.export.exported_header import ExportedHeader
from det_core.export.onnx_model import named_arrays
from det_core.optional_packages import require

HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoRunner:
    """Runs a written model in OpenVINO on the CPU.

    precision: fp32, or bf16, of the layers that are not int8 in the file.
    """

    def __init__(self, file: Path, *, precision: Literal["fp32", "bf16"] = "fp32") -> None:
        openvino: Any = require("openvino", "running a model in OpenVINO", "openvino")
        settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        core = openvino.Core()
        try:
            model = core.read_model(str(file))
            self._compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise DetError(f"{file}: OpenVINO cannot read it ({str(error).strip().splitlines()[-1]})") from None
        path = ["framework"]  # where OpenVINO keeps an ONNX model's metadata
        metadata = model.get_rt_info(path).value if model.has_rt_info(path) else {}
        self.header = ExportedHeader.from_metadata({name: str(metadata[name]) for name in metadata}, str(file))

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Outputs of `PaddedDetector`."""
        request = self._compiled.create_infer_request()  # one for each call: several threads may call at once
        found = request.infer(named_arrays(inputs, self.header))
        return tuple(torch.from_numpy(found[name].copy()) for name in self.header.outputs)
