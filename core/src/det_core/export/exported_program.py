"""`torch.export` programs of detectors: tracing, writing, reading.

Letters: N images, H W size of the input, P proposals of an image.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

import det_ops
from det_core.errors import DetError
from det_core.export.exported_header import ExportedHeader
from det_core.export.padded_detector import AXES, PaddedDetector
from det_core.torch_internals import any_size

# The size that tracing sees, of two images. Levels of one row or column would become constants of the program, so it is
# larger than the coarsest stride of every family.
EXAMPLE = (1088, 1600)
PROPOSALS = 7  # of each image of the example
EXTRA = "det.json"


def example_inputs(
    height: int, width: int, count: int = 2, *, pixels: str = "uint8", takes_proposals: bool = False
) -> tuple[Tensor, ...]:
    """Inputs of `PaddedDetector` for `count` grey images (height, width) of dtype `pixels`."""
    sizes = torch.tensor([[height, width]] * count)
    images = torch.full((count, 3, height, width), 127, dtype=getattr(torch, pixels))
    inputs = images, sizes, sizes.clone(), torch.ones(count, 2)
    if not takes_proposals:
        return inputs
    whole = torch.tensor([0.0, 0.0, width, height])
    return *inputs, whole.repeat(count, PROPOSALS, 1), torch.full((count,), PROPOSALS)


def trace(module: PaddedDetector, header: ExportedHeader) -> ExportedProgram:
    """The program of a detector, for any number of images, height, width and proposals.

    NotExportableError for a detector that has no form of fixed size.
    """
    shapes = tuple(dict.fromkeys(AXES[name], Dim.DYNAMIC) for name in header.inputs)
    example = example_inputs(*EXAMPLE, pixels=header.pixels, takes_proposals=header.takes_proposals)
    with torch.no_grad(), any_size():
        return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)


def write_program(program: ExportedProgram, header: ExportedHeader, file: Path) -> None:
    """Write a program with its header."""
    torch.export.save(program, file, extra_files={EXTRA: json.dumps(header.to_metadata())})


class ProgramRunner:
    """Runs a written program."""

    def __init__(self, file: Path, device: torch.device) -> None:
        assert det_ops.nms_images is not None  # imported, so that the operators are registered
        extra = {EXTRA: ""}
        try:
            program = torch.export.load(str(file), extra_files=extra)
        except Exception as error:  # torch raises many kinds for a damaged file
            raise DetError(f"{file}: not a readable torch.export program ({type(error).__name__}: {error})") from None
        text = extra[EXTRA]
        self.header = ExportedHeader.from_metadata(json.loads(text) if text else {}, str(file))
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        # The guards that are left, and the ranges of sizes, refuse images whose coarsest level has one row; the program
        # is correct for these, too.
        program.range_constraints.clear()
        self.device, self._call = device, program.module(check_guards=False)

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Outputs of `PaddedDetector`, on the CPU."""
        with torch.no_grad():
            found = self._call(*(x.to(self.device) for x in inputs))
        return tuple(x.cpu() for x in found)
