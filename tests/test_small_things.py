"""What users meet on the way: web addresses, narrow terminals, commands without arguments, parts that state wrongly."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch

from det_core import ConfigError, DetError, for_inference, load_detector, load_recipe, predict, train
from det_core.cli import output
from det_core.cli.main import run
from det_core.engine.check_features import check_features
from det_core.engine.published_checkpoint import initial_checkpoint
from det_core.errors import no_such
from det_core.model.memory_layout import to_channels_last
from det_core.specs import FeatureSpec

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "https://example.org/a/b.pth"
IS_ADDRESS = f"{ADDRESS}: a web address; only local files are read, so download it first"


@pytest.mark.parametrize("path", [ADDRESS, Path(ADDRESS), "s3://example.org/a/b.pth"])
def test_a_web_address_is_called_what_it_is(path):
    assert no_such(path, "no such file") == IS_ADDRESS.replace("https", str(path).partition(":")[0])
    assert no_such("C:/x", "no such file") == "C:/x: no such file"
    assert no_such(Path.cwd() / Path(ADDRESS), "no such file") == IS_ADDRESS


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config", "https://example.org/a/b.yaml"],
        ["train", "--recipe", "faster-rcnn/r18-fpn-demo", "--init", ADDRESS, "--work-dir", "RUN"],
        ["train", "--recipe", "faster-rcnn/r18-fpn-demo", "--init", ADDRESS, "--from", "mmdet", "--work-dir", "RUN"],
        ["import-weights", ADDRESS, "--from", "mmdet", "-o", "RUN/a.safetensors"],
        ["train", "--recipe", "faster-rcnn/r18-fpn-demo", "--data", "https://example.org/data", "--work-dir", "RUN"],
        ["data", "--data", "https://example.org/data"],
        ["recipes", "--plugin-file", "https://example.org/my_parts.py"],
        ["test", "--checkpoint", ADDRESS],
        ["predict", "--checkpoint", "CHECKPOINT", ADDRESS, "--out", "RUN"],
    ],
    ids=lambda a: " ".join(a[:2]),
)
def test_commands_say_so(arguments, tmp_path, tiny_checkpoint, capsys):
    places = {"RUN": str(tmp_path / "run"), "RUN/a.safetensors": str(tmp_path / "a.safetensors")}
    places["CHECKPOINT"] = str(tiny_checkpoint)
    assert run([places.get(a, a) for a in arguments]) == 1
    assert ": a web address; only local files are read, so download it first" in capsys.readouterr().err


def test_train_without_a_recipe_shows_what_to_give(capsys):
    assert run(["train"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: no recipe was given; for example"
    assert [line.split()[0] for line in lines[1:]] == ["--plugin", "--recipe", "--config"]


def test_recipes_fit_a_narrow_terminal(monkeypatch, capsys):
    for module in ("recipes", "output"):  # which the first one imports
        monkeypatch.setattr(f"det_core.cli.{module}.terminal_width", lambda: 80)
    assert run(["recipes", "--model", "cascade-mask-rcnn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith(("cascade-mask-rcnn/", " "))]
    assert max(map(len, table)) <= 80
    assert "    default" in table
    assert "    with deformable convolution (Dai et al., 2017)" in table
    assert "fps" not in lines[1]
    monkeypatch.undo()
    assert output.terminal_width() == 200  # not a terminal
    assert run(["recipes", "--model", "cascade-mask-rcnn"]) == 0
    assert "fps" in capsys.readouterr().out.splitlines()[1]


def test_the_cost_of_a_recipe_of_ones_own(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: faster-rcnn/r18-fpn-demo\n")
    assert run(["recipes", "--cost", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert "mine" in out
    assert "GFLOPs: of one test image of 320x320" in out
    assert run(["recipes", "--cost", "--json", "--config", str(file)]) == 0
    assert '"name": "mine"' in capsys.readouterr().out
    assert run(["recipes", "--config", str(file)]) == 1
    assert "--config is for --cost; `det-core recipes show FILE` prints a recipe" in capsys.readouterr().err


def test_the_targets_of_make_are_in_one_column():
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [line.split()[1] for line in done.stdout.splitlines()]
    texts = [line.partition(f"make {name}")[2] for line, name in zip(done.stdout.splitlines(), names, strict=True)]
    column = {len(f"  make {name}") + len(text) - len(text.lstrip()) for name, text in zip(names, texts, strict=True)}
    assert len(column) == 1
    assert "test-oldest" in names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"channels": (64, 128, 256, 99)},
            r"detector.backbone: ResNet returns 4 maps of \[64, 128, 256, 512\] channels, ",
        ),
        (
            {"strides": (4, 8, 16, 16)},
            r"ResNet returns maps of strides \[4.0, 8.0, 16.0, 32.0\], but states \[4, 8, 16, 16",
        ),
    ],
)
def test_a_backbone_that_states_other_features_is_named(changes, message):
    detector = load_recipe("faster-rcnn/r18-fpn-demo").detector.build(num_classes=1)
    check_features(detector.train())
    assert detector.training
    right = {"channels": (64, 128, 256, 512), "strides": (4, 8, 16, 32)}
    detector.backbone.out = FeatureSpec(**(right | changes))
    with pytest.raises(ConfigError, match=message):
        check_features(detector)


def test_training_names_it_before_the_first_step(tmp_path, monkeypatch, tiny_settings):
    import det_plugin_fpn.neck as neck

    settings = [s for s in tiny_settings if "mask_head" not in s]
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", settings)
    real = neck.FPN.forward
    monkeypatch.setattr(neck.FPN, "forward", lambda self, maps: real(self, maps)[:-1])
    with pytest.raises(
        ConfigError, match=r"detector.neck: FPN returns 4 maps of \[32, 32, 32, 32\] channels, but states"
    ):
        train(recipe, work_dir=tmp_path, quiet=True)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_kernels_of_one_pixel_have_the_strides_of_their_gradients():
    """Or DistributedDataParallel warns of them in every run."""
    conv = torch.nn.Conv2d(8, 4, 1)
    before = conv.weight.detach().clone()
    to_channels_last(conv)
    assert torch.equal(conv.weight, before)
    conv(torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.stride() == conv.weight.grad.stride() == (8, 1, 8, 8)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_detector_for_inference_is_copied_and_pickled(copied, tiny_checkpoint):
    """Also after it has packed its weights for the first image."""
    detector = for_inference(load_detector(tiny_checkpoint))
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (expected,) = predict(detector, [image])
    (found,) = predict(copied(detector), [image])
    assert len(expected.boxes) > 0
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


# A start from the file of another project


@pytest.fixture
def old_file(tmp_path):
    """A checkpoint with the names of mmdetection 2, of the tiny recipe in `own.yaml`."""
    sys.path.append(str(Path(__file__).parent))
    from mmdet1_files import written_in_1x

    from det_core.conventions import under

    recipe = under(load_recipe("mask-rcnn/r18-fpn-demo", ["data.workers=0"]), "mmdet1")
    torch.manual_seed(0)
    file = tmp_path / "old.pth"
    state = written_in_1x(recipe.detector.build(num_classes=3))
    torch.save({"state_dict": state, "meta": {"mmdet_version": "1.0rc0"}}, file)
    (tmp_path / "own.yaml").write_text(attrs.evolve(recipe, name="own").to_yaml())
    return file


def test_init_of_another_project_says_which_command_converts_it(old_file):
    with pytest.raises(DetError) as error:
        initial_checkpoint(old_file, load_recipe("mask-rcnn/r18-fpn-demo"))
    text = str(error.value)
    assert "found a .pth file with the names of mmdet" in text
    assert f"det-core import-weights {old_file} --from mmdet -o old.safetensors" in text
    old_file.write_bytes(b"nothing")
    with pytest.raises(DetError, match=r"found a .pth file, expected a checkpoint of det; give --from PROJECT, too"):
        initial_checkpoint(old_file, load_recipe("mask-rcnn/r18-fpn-demo"))


def test_init_with_from_converts_the_file_and_trains(old_file, tmp_path, capsys):
    arguments = ["train", "--config", str(tmp_path / "own.yaml"), "--init", str(old_file), "--from", "mmdet"]
    assert run([*arguments, "--work-dir", str(tmp_path / "run"), "--max-steps", "1", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"{old_file}: a detector of" in out
    assert f"tensors from {tmp_path}/run/init.safetensors" in out
    assert "re-initialised, because the class lists differ" in out
    assert "stopped after step 1" in out


def test_from_without_init_or_with_a_plugin(tmp_path, capsys):
    assert run(["train", "--recipe", "faster-rcnn/r18-fpn-demo", "--from", "mmdet"]) == 1
    assert "error: --from mmdet: no --init; it is for the checkpoint of another project" in capsys.readouterr().err
    file = tmp_path / "x.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, file)
    assert run(["train", "--plugin", "rcnn", "--init", str(file), "--from", "mmdet"]) == 1
    assert "--from: give --recipe or --config instead of --plugin" in capsys.readouterr().err
    assert run(["train", "--recipe", "faster-rcnn/r18-fpn-demo", "--init", str(file), "--from", "torchvision"]) == 1
    assert (
        f"{file}: an ImageNet model, not a detector; convert it with `det-core import-weights`"
        in capsys.readouterr().err
    )
