"""The plugin's own operator: the native kernel gives what its definition says, and the definition serves without it."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from det_ops import native

from det_plugin_double_head import windows

BOXES = torch.tensor([[0.0, 0.0, 10.0, 20.0], [-5.0, 3.0, 5.0, 4.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_is_its_definition(dtype):
    boxes = torch.cat([BOXES.to(dtype), torch.rand(100, 4, dtype=dtype)])
    assert torch.equal(windows.enlarge(boxes, 1.3), windows.plain(boxes, 1.3))
    assert windows.enlarge(boxes[:0], 1.3).shape == (0, 4)
    if shutil.which(os.environ.get("CXX", "c++")):
        assert native.load(windows.LIBRARY).loaded


def test_half_precision_is_served_by_the_definition():
    assert windows.enlarge(BOXES.half(), 2.0).tolist() == [[-5, -10, 15, 30], [-10, 2.5, 10, 4.5]]


def test_without_native_libraries_the_definition_serves():
    code = (
        "import torch; from det_plugin_double_head import windows;"
        "print(windows.enlarge(torch.tensor([[0., 0, 10, 20]]), 2.0).tolist())"
    )
    environment = {**os.environ, "DET_OPS_NATIVE": "off"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[[-5.0, -10.0, 15.0, 30.0]]"
