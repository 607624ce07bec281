"""`det-core recipes`, `recipes show` and `recipes schema`."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

from det_core.cli.main import run
from det_core.load import load_recipe, recipe_from_plain
from det_core.model.detector_config import DetectorConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import SGDConfig
from det_core.recipe import DataConfig, EvaluationConfig, Published, Recipe
from det_core.slots import BackboneConfig, DatasetConfig, DenseHeadConfig
from det_core.specs import FeatureSpec
from det_core.testing.isolated_plugins import isolated_manager, make_plugin, stub_config


@stub_config
class Tower(BackboneConfig):
    """A backbone."""

    type: ClassVar[str] = "tower"
    depth: int = 50

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=(8,), strides=(4,))


@stub_config
class Dense(DenseHeadConfig):
    """A head."""

    type: ClassVar[str] = "dense"


@stub_config
class Files(DatasetConfig):
    """A data set."""

    type: ClassVar[str] = "files"


def make() -> Recipe:
    return Recipe(
        name="one/r50-1x",
        detector=DetectorConfig(backbone=Tower(), dense_head=Dense()),
        data=DataConfig(train=Files(), val=Files()),
        evaluation=EvaluationConfig(evaluators=()),
    )


ENTRIES = [
    RecipeEntry(
        name="one/r50-1x", make=make, published=Published(box_ap=36.44, mask_ap=33.0, source="somebody"), default=True
    ),
    RecipeEntry(name="one/demo", make=pytest.fail, demo=True, summary="on the sample"),
    RecipeEntry(name="two/r50-1x", make=pytest.fail, requires=("det-plugin-nowhere",)),
]
ZOO = make_plugin(
    "zoo",
    det_recipes=lambda: ENTRIES,
    det_backbones=lambda: [Tower],
    det_heads=lambda: [Dense],
    det_datasets=lambda: [Files],
    det_optimizers=lambda: [SGDConfig],
    det_schedules=lambda: [StepRateConfig],
)


@pytest.fixture(autouse=True)
def zoo():
    with isolated_manager(ZOO):
        yield


def test_recipes_are_listed_by_model_with_figures_and_needs(capsys):
    assert run(["recipes"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines() if line.strip()]
    assert lines == [
        "one box AP mask AP",
        "one/demo demo; on the sample",
        "one/r50-1x 36.4 33.0 default",
        "two",
        "two/r50-1x needs det-plugin-nowhere: pip install det-plugin-nowhere",
        "figures: as published by others, not measured here (coco: somebody); AP and AR in percent",
    ]


def test_memory_and_speed_stand_beside_accuracy(capsys):
    published = Published(box_ap=77.5, modern_box_ap=78.0, memory_gb=2.5, train_s_per_iter=0.159, inference_fps=35.7)
    only_modern = Published(modern_memory_gb=3.0, dataset="voc")
    entries = [
        RecipeEntry(name="ssd/a", make=pytest.fail, published=published),
        RecipeEntry(name="ssd/b", make=pytest.fail, published=only_modern),
    ]
    with isolated_manager(make_plugin("zoo", det_recipes=lambda: entries)):
        assert run(["recipes"]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert lines[:3] == ["ssd box AP GB s/iter fps", "ssd/a 77.5 (78.0) 2.5 0.16 35.7", "ssd/b (3.0)"]
        assert "GB of memory per GPU and seconds per step in training, images per second at test" in lines
        assert lines[-1] == "in brackets: re-runs with the conventions of these recipes"
        assert run(["recipes", "--dataset", "voc"]) == 0
        out = capsys.readouterr().out
        assert "ssd/b" in out
        assert "ssd/a" not in out
        assert run(["recipes", "--dataset", "vov"]) == 1
        assert capsys.readouterr().err == "error: no recipes on data set 'vov'; did you mean \"voc\"?\n"


def test_what_most_recipes_of_a_model_are_stands_above_them_once(capsys):
    summaries = {"m/a": "boxes", "m/b": "boxes", "m/c": "boxes, small", "m/d": "with more"}
    entries = [RecipeEntry(name=n, make=pytest.fail, summary=s, default=n == "m/a") for n, s in summaries.items()]
    with isolated_manager(make_plugin("zoo", det_recipes=lambda: entries)):
        assert run(["recipes"]) == 0
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == "m: boxes"
        assert [line.split(maxsplit=1) for line in lines[1:] if line] == [
            ["m/a", "default"],
            ["m/b"],
            ["m/c", "small"],
            ["m/d", "with more"],
        ]
        assert run(["recipes", "--json"]) == 0
        assert [e["summary"] for e in json.loads(capsys.readouterr().out)] == list(summaries.values())


def test_names_are_found_by_their_parts(capsys):
    assert run(["recipes", "--find", "r50", "--find", "one"]) == 0
    out = capsys.readouterr().out
    assert "one/r50-1x" in out
    assert "one/demo" not in out
    assert "two/" not in out
    assert run(["recipes", "--model", "one", "--find", "r50", "--find", "2x"]) == 1
    assert capsys.readouterr().err == "error: no recipe matches --model one --find r50 --find 2x; remove an option\n"


def test_a_recipe_that_needs_what_is_missing_has_no_cost(capsys):
    assert run(["recipes", "--model", "two", "--cost", "--json"]) == 0
    (two,) = json.loads(capsys.readouterr().out)
    assert two["cost"] is None
    assert run(["recipes", "--model", "two", "--cost"]) == 0
    assert capsys.readouterr().out.split("\n")[0].split() == ["two", "params", "M", "GFLOPs"]


def test_one_model(capsys):
    assert run(["recipes", "--model", "two"]) == 0
    out = capsys.readouterr().out
    assert "two/r50-1x" in out
    assert "one/" not in out
    assert "figures" not in out
    assert run(["recipes", "--model", "tow"]) == 1
    assert capsys.readouterr().err == "error: no recipes of model 'tow'; did you mean \"two\"?\n"
    assert run(["recipes", "--model", "xyzzy"]) == 1
    assert "no recipes of model 'xyzzy'; available: one, two" in capsys.readouterr().err


def test_json_of_the_list(capsys):
    assert run(["recipes", "--json"]) == 0
    demo, one, two = json.loads(capsys.readouterr().out)
    assert (demo["name"], demo["demo"], demo["summary"]) == ("one/demo", True, "on the sample")
    assert one["published"]["box_ap"] == 36.44
    assert (one["model"], one["default"], one["missing"]) == ("one", True, [])
    assert two["missing"] == two["requires"] == ["det-plugin-nowhere"]


def test_without_recipes_it_says_why(capsys):
    with isolated_manager():
        assert run(["recipes"]) == 0
    assert "no recipes: no installed plugin provides any (`det-core plugins`)" in capsys.readouterr().out


def test_show_prints_what_loads_again(tmp_path, capsys):
    assert run(["recipes", "show", "one/r50-1x", "--set", "detector.backbone.depth=101"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf8")
    assert load_recipe(path) == load_recipe("one/r50-1x", ["detector.backbone.depth=101"])
    assert run(["recipes", "show", str(path), "--json"]) == 0
    assert recipe_from_plain(json.loads(capsys.readouterr().out)) == load_recipe(path)


def test_show_reports_mistakes(capsys):
    assert run(["recipes", "show", "one/r50-1x", "--set", "detector.backbone.dept=101"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: one/r50-1x with --set: 1 problem",
        '  detector.backbone.dept: unknown key; did you mean "depth"?',
    ]
    assert run(["recipes", "show", "two/r50-1x"]) == 1
    hint = "requires packages that are not installed: det-plugin-nowhere: pip install det-plugin-nowhere"
    assert hint in capsys.readouterr().err


def test_schema_is_json(capsys):
    assert run(["recipes", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$defs"]["Recipe"]["properties"]["extends"]["anyOf"][0]["enum"] == [
        "one/demo",
        "one/r50-1x",
        "two/r50-1x",
    ]
    assert schema["$defs"]["backbone.tower"]["properties"]["depth"] == {"type": "integer", "default": 50}


def test_recipes_for_weights_of_other_toolboxes_stand_apart(capsys):
    sources = {"m/a": "", "m/detectron-a": "detectron", "m/detectron-b": "detectron", "m/torchvision-a": "torchvision"}
    entries = [RecipeEntry(name=n, make=pytest.fail, summary="boxes", weights_of=s) for n, s in sources.items()]

    def shown(*options: str) -> list[str]:
        assert run(["recipes", *options]) == 0
        return [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]

    detectron = ["m, for weights of Detectron: boxes", "m/detectron-a", "m/detectron-b"]
    with isolated_manager(make_plugin("zoo", det_recipes=lambda: entries)):
        *first, last = shown()
        assert [" ".join(line.split()) for line in first] == [
            "m",
            "m/a boxes",
            "m, for weights of torchvision",
            "m/torchvision-a boxes",
        ]
        assert last == "and recipes for weights of other toolboxes: 2 of Detectron (--weights-of SOURCE, or --all)"
        assert shown("--weights-of", "detectron") == detectron
        assert all(line in shown("--all") for line in detectron)
        assert run(["recipes", "--weights-of", "detektron"]) == 1
        assert capsys.readouterr().err == (
            "error: no recipes for weights of 'detektron'; did you mean \"detectron\"?\n"
        )
        assert run(["recipes", "--weights-of", "detectron", "--find", "x"]) == 1
        assert "no recipe matches --weights-of detectron --find x; remove an option" in capsys.readouterr().err
