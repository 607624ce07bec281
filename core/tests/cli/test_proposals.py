"""`det-core proposals`: what it refuses before it imports torch, and its help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from det_core.cli.main import run


@pytest.mark.parametrize("name", ["train.npz", "train.pkl", "train"])
def test_the_file_is_named_for_its_format(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["proposals", "--checkpoint", "nowhere", "-o", f"out/{name}"]) == 1
    message = f"error: --out out/{name}: a proposals file is in safetensors format; name it train.safetensors\n"
    assert capsys.readouterr() == ("", message)


def test_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["proposals", "--checkpoint", str(tmp_path / "none"), "-o", "x.safetensors"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: no such file or folder\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "x"], "Missing option '-o' / '--out'"),
        (["--checkpoint", "x", "-o", "x.safetensors", "--max-per-image", "0"], "0 is not in the range x>=1"),
        (["--checkpoint", "x", "-o", "x.safetensors", "--split", "all"], "'all' is not one of 'train', 'val', 'test'"),
    ],
)
def test_options_are_checked(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["proposals", *arguments]) == 2
    assert message in capsys.readouterr().err


CONVERT = ["--convert", "x.pkl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found neither: give --checkpoint of an RPN, or --convert FILE with --from and --data"),
        (["--checkpoint", "x", "--from", "mmdet1"], "found --from without --convert: give --checkpoint of an RPN, or"),
        (CONVERT, "--convert requires --from and --data, without --checkpoint: give --from mmdet1 --data ROOT"),
        ([*CONVERT, "--from", "mmdet1"], "--convert requires --from and --data"),
        ([*CONVERT, "--from", "mmdet1", "--data", "x", "--checkpoint", "y"], "--convert requires --from and --data"),
    ],
)
def test_a_checkpoint_or_a_file_to_convert(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["proposals", "-o", "x.safetensors", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_help_is_light_and_says_how_the_file_is_used() -> None:
    code = (
        "import sys\nfrom det_core.cli.main import run\nrun(['proposals', '--help'])\n"
        "print('IMPORTED', *sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "IMPORTED"
    assert "--set data.train.proposals=FILE --set data.val.proposals=FILE" in " ".join(done.stdout.split())
