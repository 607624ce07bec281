"""The mistakes people make in a recipe: all refused at load, before torch is imported, with path and remedy."""

from __future__ import annotations

import pytest

from det_core.errors import ConfigError
from det_core.load import load_recipe
from det_core.model.detector_config import DetectorConfig
from det_core.specs import FeatureSpec
from det_plugin_rcnn.config import RCNNHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

# Calls of Python functions: a refusal makes 170,000, which take 0.2 s on an idle machine.
MOST_CALLS = 500_000

MISSPELLED_THRESHOLD = "extends: mask-rcnn/r50-fpn-1x\ndetector:\n  roi_head:\n    score_treshold: 0.3\n"
UNKNOWN_KEY = "extends: mask-rcnn/r50-fpn-1x\ndetector:\n  roi_head:\n    sampler: {positives: 0.5}\n"
BAD_NECK = "extends: mask-rcnn/r50-fpn-1x\ndetector:\n  neck: null\n"
UNKNOWN_TYPE = "extends: mask-rcnn/r50-fpn-1x\ndetector:\n  backbone: {type: resnett}\n"


@pytest.fixture
def refused(run_counted, tmp_path):
    """Exit status and stderr of `det-core train ...` in a fresh process, which does little and imports no torch."""

    def train(*arguments: str, **environment: str) -> tuple[int, list[str]]:
        done = run_counted("train", *arguments, "--work-dir", "unused", cwd=tmp_path, **environment)
        assert done.heavy == []
        assert done.calls <= MOST_CALLS
        assert not (tmp_path / "unused").exists()
        return done.status, done.errors

    return train


@pytest.fixture
def refuse(refused, tmp_path):
    def refuse_text(text: str) -> list[str]:
        (tmp_path / "my.yaml").write_text(text, encoding="utf8")
        status, lines = refused("--config", "my.yaml")
        assert status == 1
        return lines

    return refuse_text


def test_1_a_misspelled_score_threshold(refuse):
    assert refuse(MISSPELLED_THRESHOLD) == [
        "error: my.yaml: 1 problem",
        '  line 4: detector.roi_head.score_treshold: unknown key; did you mean "score_threshold"?',
    ]


def test_2_an_unknown_key_two_levels_down(refuse):
    (_, line) = refuse(UNKNOWN_KEY)
    assert line.startswith(
        '  line 4: detector.roi_head.sampler.positives: unknown key; did you mean "positive_fraction"'
    )


def test_3_a_removed_required_field(refused, tmp_path):
    text = load_recipe("mask-rcnn/r50-fpn-1x").to_yaml()
    head, _, tail = text.partition("evaluation:")
    rest = tail[tail.index("\n  every_epochs") :]
    (tmp_path / "my.yaml").write_text(f"{head}evaluation:{rest}", encoding="utf8")
    status, lines = refused("--config", "my.yaml")
    assert status == 1
    line = head.count("\n") + 1  # that of `evaluation`
    assert lines == [
        "error: my.yaml: 1 problem",
        f"  line {line}: evaluation.evaluators: required key is missing (metrics on the validation data)",
    ]


def test_4_a_neck_whose_channels_the_head_cannot_take(refuse):
    (_, line) = refuse(BAD_NECK)
    assert line.startswith("  line 2: detector.dense_head: ")
    assert "channels [256, 512, 1024, 2048]" in line
    assert "add a neck that makes them equal (for example type: fpn)" in line


def test_4_in_python_it_is_refused_as_well():
    with pytest.raises(
        ValueError, match=r"^DetectorConfig.dense_head: dense_head 'rpn' requires the same channel count at all levels"
    ):
        DetectorConfig(backbone=ResNetConfig(), dense_head=RPNConfig(), roi_head=RCNNHeadConfig())
    with pytest.raises(ConfigError, match="^RPNConfig.in_channels: unknown key"):
        RPNConfig(in_channels=256)  # sizes come from the part before: there is nothing to get wrong
    assert RPNConfig().check(FeatureSpec(channels=(7, 7), strides=(4, 8))) is None


def test_5_an_unknown_argument(refused):
    status, lines = refused("--recipe", "mask-rcnn/r50-fpn-1x", "--set", "detector.neck.out_chanels=128")
    assert status == 1
    assert lines[1].startswith("  detector.neck.out_chanels: unknown key; ")
    status, lines = refused("--recipe", "mask-rcnn/r50-fpn-1x", "--max-step", "3", "--epoch", "3")
    assert status == 2
    assert "No such option" in lines[-1]
    with pytest.raises(ConfigError, match='^ResNetConfig.dept: unknown key; did you mean "depth"'):
        ResNetConfig(dept=101)


def test_6_an_unknown_type_gets_the_nearest_names(refuse):
    assert refuse(UNKNOWN_TYPE) == [
        "error: my.yaml: 1 problem",
        "  line 3: detector.backbone.type: unknown type 'resnett' for backbone; did you mean \"resnet\"?",
    ]


def test_6_a_type_of_a_known_plugin_says_how_to_install_it(refused, tmp_path):
    (tmp_path / "my.yaml").write_text(
        "name: mine\ndetector:\n  backbone: {type: resnet}\n  dense_head: {type: rpn}\n", encoding="utf8"
    )
    status, lines = refused("--config", "my.yaml", DET_PLUGINS="-resnet")
    assert status == 1
    assert (
        "  line 3: detector.backbone.type: unknown type 'resnet' for backbone; det-plugin-resnet provides it, but "
        "DET_PLUGINS switches it off"
    ) in lines


def test_all_mistakes_of_a_file_come_at_once(refuse):
    lines = refuse(
        "extends: mask-rcnn/r50-fpn-1x\ndetector:\n  backbone: {depth: 51}\n  roi_head:\n    score_treshold: 0.3\n"
        "    sampler: {count: 1.5}\nschedule: {epochs: 0}\n"
    )
    assert lines[0] == "error: my.yaml: 4 problems"
    assert [line.strip().rpartition(": ")[0].split(": ")[:2] for line in lines[1:]] == [
        ["line 3", "detector.backbone.depth"],
        ["line 5", "detector.roi_head.score_treshold"],
        ["line 6", "detector.roi_head.sampler.count"],
        ["line 7", "schedule.epochs"],
    ]


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("detector.neck.levels", 16),
        ("detector.dense_head.guided.scales_per_octave", 64),
        ("detector.roi_head.box_head.num_fcs", 64),
        ("detector.roi_head.box_head.num_convs", 64),
    ],
)
def test_numbers_of_layers_are_bounded(path: str, most: int) -> None:
    """A file whose header asks for a thousand million layers must not occupy a processor."""
    recipe = "ga-rpn/r50-caffe-fpn-1x" if "scales_per_octave" in path else "faster-rcnn/r50-fpn-1x"
    with pytest.raises(ConfigError, match=f"found 1000000000, expected at least . and at most {most}"):
        load_recipe(recipe, [f"{path}=1000000000"])
