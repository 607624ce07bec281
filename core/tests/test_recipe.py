"""Recipes: from the zoo and from files, extended and overridden, and back to YAML."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

import attrs
import pytest

from det_core.config.yaml_text import parse_yaml
from det_core.errors import ConfigError, DetError, PluginError
from det_core.load import load_recipe, recipe_from_plain
from det_core.model.detector_config import DetectorConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import SGDConfig
from det_core.recipe import DataConfig, EvaluationConfig, Published, Recipe, ScheduleConfig
from det_core.settings import setting
from det_core.slots import (
    BackboneConfig,
    DatasetConfig,
    DenseHeadConfig,
    EvaluatorConfig,
    NeckConfig,
    ProposalHeadConfig,
    RoIHeadConfig,
    TransformConfig,
)
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.testing.isolated_plugins import isolated_manager, make_plugin, stub_config
from det_core.zoo import sample_recipe


@stub_config
class Tower(BackboneConfig):
    """A backbone."""

    type: ClassVar[str] = "tower"
    depth: Literal[18, 50, 101] = setting("", default=50)

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=(64, 128), strides=(4, 8))


@stub_config
class Evening(NeckConfig):
    """A neck."""

    type: ClassVar[str] = "evening"
    channels: int = 32

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        return FeatureSpec(channels=(self.channels,) * len(inputs.channels), strides=inputs.strides)


@stub_config
class Proposing(ProposalHeadConfig):
    """A proposal head."""

    type: ClassVar[str] = "proposing"

    def check(self, features: FeatureSpec) -> None:
        features.same_channels("the proposal head")


@stub_config
class Dense(DenseHeadConfig):
    """A head that proposes nothing."""

    type: ClassVar[str] = "dense"


@stub_config
class Regional(RoIHeadConfig):
    """A RoI head."""

    type: ClassVar[str] = "regional"
    stride: int = 4

    def check(self, features: FeatureSpec) -> None:
        features.level(self.stride, "the RoI head")


@stub_config
class Files(DatasetConfig):
    """A data set."""

    type: ClassVar[str] = "files"
    annotations: str


@stub_config
class Flip(TransformConfig):
    """A transform."""

    type: ClassVar[str] = "flip"
    probability: float = 0.5


@stub_config
class Resize(TransformConfig):
    """A transform."""

    type: ClassVar[str] = "resize"
    sizes: tuple[int, ...] = (800,)


@stub_config
class Accuracy(EvaluatorConfig):
    """A metric."""

    type: ClassVar[str] = "accuracy"


def make_recipe() -> Recipe:
    return Recipe(
        name="zoo/one",
        detector=DetectorConfig(
            backbone=Tower(),
            neck=Evening(),
            dense_head=Proposing(train_limits=ProposalLimits(before_nms=12)),
            roi_head=Regional(),
        ),
        data=DataConfig(
            train=Files(annotations="train.json"),
            val=Files(annotations="val.json"),
            train_transforms=(Resize(sizes=(640, 800)), Flip()),
        ),
        optimizer=SGDConfig(lr=1e-5),
        schedule=ScheduleConfig(clip_norm=35.0),
        evaluation=EvaluationConfig(evaluators=(Accuracy(),)),
        published=Published(box_ap=36.4),
    )


PARTS = make_plugin(
    "parts",
    det_backbones=lambda: [Tower],
    det_necks=lambda: [Evening],
    det_heads=lambda: [Proposing, Dense, Regional],
    det_datasets=lambda: [Files],
    det_transforms=lambda: [Flip, Resize],
    det_evaluators=lambda: [Accuracy],
    det_optimizers=lambda: [SGDConfig],
    det_schedules=lambda: [StepRateConfig],
    det_recipes=lambda: [
        RecipeEntry(name="zoo/one", make=make_recipe),
        RecipeEntry(name="zoo/locked", make=pytest.fail, requires=("det-plugin-nowhere", "attrs", "det-plugin-none")),
    ],
)


@pytest.fixture(autouse=True)
def parts():
    with isolated_manager(PARTS) as manager:
        assert manager.plugins[0].errors == []
        yield manager


@pytest.fixture
def write(tmp_path):
    def write_text(text: str, name: str = "mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf8")
        return path

    return write_text


def test_a_recipe_round_trips_through_yaml_and_json():
    recipe = load_recipe("zoo/one")
    assert recipe == make_recipe()
    assert recipe_from_plain(parse_yaml(recipe.to_yaml(), "x")) == recipe
    assert recipe_from_plain(json.loads(json.dumps(recipe.to_plain()))) == recipe


def test_a_demo_is_on_the_bundled_sample_and_short():
    made = make_recipe()
    demo = sample_recipe("x/demo", made.detector, made.evaluation, lr=0.02, weight_decay=0.1, epochs=40)
    assert (demo.name, demo.detector, demo.evaluation) == ("x/demo", made.detector, made.evaluation)
    assert (demo.optimizer.lr, demo.optimizer.lr_batch, demo.optimizer.weight_decay) == (0.02, 0, 0.1)
    assert (demo.schedule.epochs, demo.schedule.learning_rate.milestones) == (40, (30, 36))
    assert [len(demo.open_train()), len(demo.open_val())] == [17, 7]


def test_a_written_recipe_is_loaded_again(write):
    recipe = load_recipe("zoo/one", ["detector.backbone.depth=101"])
    assert load_recipe(write(recipe.to_yaml())) == recipe
    assert load_recipe(str(write(recipe.to_yaml()))) == recipe
    assert load_recipe(write(json.dumps(recipe.to_plain()), "mine.json")) == recipe


def test_overrides_from_the_command_line():
    recipe = load_recipe(
        "zoo/one", ["detector.backbone.depth=18", "data.train_transforms[0].sizes=[100]", "optimizer.lr=1e-3"]
    )
    assert recipe.detector.backbone == Tower(depth=18)
    assert recipe.data.train_transforms == (Resize(sizes=(100,)), Flip())
    assert recipe.optimizer.lr == 1e-3


def test_mistakes_in_overrides_are_reported_like_those_in_files():
    with pytest.raises(ConfigError) as caught:
        load_recipe("zoo/one", ["detector.backbone.dept=18", "schedule.epochs=0", "data.repeat=1.5"])
    assert str(caught.value).splitlines() == [
        "zoo/one with --set: 3 problems",
        '  detector.backbone.dept: unknown key; did you mean "depth"?',
        "  data.repeat: found 1.5, expected a whole number",
        "  schedule.epochs: found 0, expected at least 1",
    ]


def test_a_file_extends_a_recipe_and_says_only_what_differs(write):
    path = write(
        "extends: zoo/one\ndetector:\n  backbone: {depth: 18}\n  roi_head: null\ndata:\n  train_transforms:\n"
        "  - type: flip\nschedule: {learning_rate: {milestones: [1]}}\n"
    )
    recipe = load_recipe(path)
    expected = make_recipe()
    assert recipe.name == "mine"
    assert recipe.published is None
    assert recipe.detector == attrs.evolve(expected.detector, backbone=Tower(depth=18), roi_head=None)
    assert recipe.data.train_transforms == (Flip(),)
    assert recipe.data.train == expected.data.train
    assert recipe.schedule == attrs.evolve(expected.schedule, learning_rate=StepRateConfig(milestones=(1,)))


def test_changing_a_type_drops_the_old_fields(write):
    path = write("extends: zoo/one\ndetector:\n  roi_head: null\n  dense_head: {type: dense}\n")
    assert load_recipe(path).detector.dense_head == Dense()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: 3\n", "extends: found 3, expected the name of one recipe"),
        ("extends: [zoo/one]\n", "extends: found ['zoo/one'], expected the name of one recipe"),
        ("extends: other.yaml\n", "extends: found the file 'other.yaml', expected the name of a recipe that a plugin"),
        ("extends: zoo/on\n", "extends: no recipe 'zoo/on'; did you mean \"zoo/one\""),
        (
            "extends: zoo/locked\n",
            "extends: recipe 'zoo/locked' requires packages that are not installed: det-plugin-nowhere: pip i",
        ),
    ],
)
def test_what_cannot_be_extended(write, text, message):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    head, line = str(caught.value).splitlines()
    assert head == f"{path}: 1 problem"
    assert line.strip().startswith(f"line 1: {message}")


def test_a_recipe_whose_requirement_is_missing_is_listed_and_says_what_to_install(parts):
    entry = parts.recipes()["zoo/locked"]
    assert entry.missing() == ["det-plugin-nowhere", "det-plugin-none"]
    with pytest.raises(PluginError, match="det-plugin-nowhere: pip install det-plugin-nowhere; det-plugin-none: pip i"):
        load_recipe("zoo/locked")


def test_an_unknown_recipe_and_a_missing_file():
    with pytest.raises(
        PluginError, match=r'no recipe \'zoo/won\'; did you mean "zoo/one"\? \(`det-core recipes` lists'
    ):
        load_recipe("zoo/won")
    with pytest.raises(DetError, match=r"none\.yaml: no such file"):
        load_recipe("none.yaml")


def test_several_mistakes_of_one_file_come_at_once(write):
    path = write(
        "extends: zoo/one\n"
        "detector:\n  backbone: {depth: 34}\n"
        "  dense_head: {train_limits: {before_nmss: 3}}\n  roi_head: {type: regionl}\n"
        "scedule: {}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert [str(p) for p in caught.value.problems] == [
        'line 6: scedule: unknown key; did you mean "schedule"?',
        "line 3: detector.backbone.depth: found 34, allowed: 18, 50, 101",
        'line 4: detector.dense_head.train_limits.before_nmss: unknown key; did you mean "before_nms"?',
        "line 5: detector.roi_head.type: unknown type 'regionl' for roi_head; did you mean \"regional\"?",
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["detector.neck=null"],
            "detector.dense_head: the proposal head requires the same channel count at all levels, but gets",
        ),
        (["detector.roi_head.stride=64"], "detector.roi_head: the RoI head requires a feature level of stride 64, but"),
        (["detector.dense_head={type: dense}"], "detector.dense_head: 'dense' proposes no boxes, so a roi_head cannot"),
        (
            ["detector.roi_head=", "detector.dense_head="],
            "detector: a detector needs a dense_head, a roi_head, or both",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_without_building(overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe("zoo/one", overrides)
    (problem,) = caught.value.problems
    assert str(problem).startswith(message)


def test_a_required_key_that_is_removed(write):
    plain = make_recipe().to_plain()
    del plain["data"]["val"]
    del plain["evaluation"]
    path = write(json.dumps(plain))
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert [str(p) for p in caught.value.problems] == [
        "line 1: data.val: required key is missing (the data set to evaluate on; null: none, so training does not "
        "evaluate)",
        "evaluation: required key is missing (metrics)",
    ]
