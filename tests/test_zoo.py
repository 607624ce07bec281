"""The zoo as a whole: every published row has its recipe, and what a recipe costs is the reference's count.

`zoo_rows.json` holds the published rows, one recipe each, with figures of the 2019 model zoo and of its later re-runs.
"""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from attrs import asdict
from torch import Tensor, nn

from det_core.cli.main import run
from det_core.engine.detector_cost import class_count, measure_cost, recipe_cost, size_at_test
from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.structures import Batch, ImageInfo

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
ROWS = json.loads((HERE / "zoo_rows.json").read_text(encoding="utf8"))
FIGURES = ("box_ap", "mask_ap", "ar1000", "memory_gb", "train_s_per_iter", "inference_fps")
MODERN = ("modern_box_ap", "modern_mask_ap", "modern_ar1000", "modern_memory_gb")


def test_every_row_is_there_once() -> None:
    names = [row["recipe"] for row in ROWS]
    assert len(names) == len(set(names)) == 149


@pytest.mark.parametrize("row", ROWS, ids=[row["recipe"] for row in ROWS])
def test_a_published_row_has_its_recipe_and_its_figures(row: dict[str, object]) -> None:
    entry = plugin_manager().recipe_entry(str(row["recipe"]))
    assert entry.published is not None
    assert not entry.missing()
    figures = asdict(entry.published)
    if row["dataset"] == "voc":
        figures["box_ap"] = figures["voc_ap50"]
    for key in (*FIGURES, *MODERN):
        if key in row:
            given = row[key] if isinstance(row[key], list) else [row[key]]
            assert figures[key] in given, key  # type: ignore[operator]
    assert figures["dataset"] == row["dataset"]


@pytest.mark.parametrize("row", ROWS, ids=[row["recipe"] for row in ROWS])
def test_a_recipe_is_of_the_style_and_length_that_its_row_says(row: dict[str, object]) -> None:
    recipe = load_recipe(str(row["recipe"]))
    style = row.get("style")
    if style is not None and row["family"] != "ssd":
        assert recipe.detector.preprocess.order == ("bgr" if style == "caffe" else "rgb")
    epochs = {"1x": 12, "2x": 24, "3x": 36, "20e": 20, "20-23-24e": 24, "120e": 120, "240e": 240}
    assert recipe.schedule.epochs * recipe.data.repeat == epochs[str(row["schedule"])]


def test_the_operations_of_retinanet_are_those_that_the_reference_states() -> None:
    """Its documentation: 239.32 G multiply-adds of an image of 800 x 1280 (and 37.74 M parameters that train)."""
    cost = recipe_cost(load_recipe("retinanet/r50-fpn-1x"), (800, 1280))
    assert cost.total_flops / 2e9 == pytest.approx(239.32, rel=0.005)
    assert round(cost.trainable / 1e6, 2) == 37.74
    assert recipe_cost(load_recipe("retinanet/r50-fpn-1x")).size == (800, 1333)


def test_operations_are_those_of_every_layer_that_runs() -> None:
    """Counted once more by hand: two for each product, of each convolution and matrix, 1000 regions at the end."""
    recipe = load_recipe("faster-rcnn/r50-fpn-1x")
    size = (64, 96)
    detector = recipe.detector.build(num_classes=80).eval()
    found: dict[str, int] = {}
    for part in ("backbone", "neck", "dense_head"):
        for layer in getattr(detector, part).modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(partial(add_convolution, found, part))
    detector.predict(Batch(images=torch.zeros(1, 3, *size), infos=(ImageInfo(size=size, original_size=size),)))
    found["roi_head"] = 2 * 1000 * (12544 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    assert recipe_cost(recipe, size).flops == found


def add_convolution(found: dict[str, int], part: str, layer: nn.Conv2d, inputs: object, output: Tensor) -> None:
    found[part] = found.get(part, 0) + 2 * output.numel() * layer.weight[0].numel()


@pytest.mark.parametrize(
    ("name", "change", "classes", "size"),
    [
        ("retinanet/r50-fpn-1x", [], 80, (800, 1333)),
        ("ssd/vgg16-300-voc-240e", [], 20, (300, 300)),
        ("ssd/vgg16-300-voc-240e", ["data.val.classes=[a, b]"], 2, (300, 300)),
        ("ssd/vgg16-300-voc-240e", ["data.val.classes=null"], 20, (300, 300)),
        (
            "ssd/vgg16-demo",
            ["data.test_transforms=[{type: resize, scales: [[200, 100]], keep_ratio: false}]"],
            1,
            (100, 200),
        ),
        ("rpn/r18-fpn-demo", ["data.test_transforms=[]"], 1, (800, 1333)),
    ],
)
def test_classes_and_size_that_a_recipe_is_counted_with(
    name: str, change: list[str], classes: int, size: tuple[int, int]
) -> None:
    recipe = load_recipe(name, change)
    assert (class_count(recipe), size_at_test(recipe)) == (classes, size)


@pytest.mark.parametrize("name", ["fast-rcnn/r18-fpn-demo", "htc/r18-fpn-demo"])
def test_regions_are_counted_as_many_as_there_may_be(name: str) -> None:
    """1000 where proposals are given."""
    recipe = load_recipe(name)
    config = recipe.detector
    cost = measure_cost(config, 1, (64, 64))
    assert list(cost.flops) == [
        p for p in ("backbone", "neck", "dense_head", "roi_head") if getattr(config, p) is not None
    ]
    assert min(cost.flops.values()) > 0
    if name.startswith("fast"):
        assert cost.flops["roi_head"] == 2 * 1000 * (64 * 49 * 256 + 256 * 256 + 256 * (2 + 4))


def test_parameters_and_operations_are_listed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recipes", "--find", "retinanet/r50-fpn-1x", "--cost"]
    assert run(words) == 0
    head, line, *rest = (" ".join(row.split()) for row in capsys.readouterr().out.splitlines())
    assert head == "retinanet box AP GB s/iter fps params M GFLOPs"
    assert line.startswith("retinanet/r50-fpn-1x 35.6 (36.5) 3.6 (3.8) 0.31 12.1 38.0 501 default; ")
    assert rest[-1] == "GFLOPs: of one test image of 800x1333, two per multiply-add; computed by det"
    assert run([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["cost"]["parameters"] == 37_968_692
    assert found["cost"]["total_flops"] == sum(found["cost"]["flops"].values())


def test_the_zoo_s_document_is_that_of_the_recipes() -> None:
    """docs/make_zoo.py writes it; what it counted is spot-checked."""
    spec = importlib.util.spec_from_file_location("make_zoo", DOCS / "make_zoo.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    costs = json.loads((DOCS / "zoo_costs.json").read_text(encoding="utf8"))
    entries = [e for e in plugin_manager().recipes().values() if e.weights_of != "mmdet1"]
    again = "run `python docs/make_zoo.py --count` and keep what it writes"
    assert list(costs) == [e.name for e in entries], again
    assert (DOCS / "zoo.md").read_text(encoding="utf8") == made.tables(entries, costs), again
    for name in (
        "rpn/r101-fpn-1x",
        "ssd/vgg16-512-voc-240e",
        "ga-retinanet/r50-caffe-fpn-1x",
        "faster-rcnn/r50-fpn-1x",
    ):
        cost = recipe_cost(load_recipe(name))
        assert costs[name] == [round(cost.parameters / 1e6, 3), round(cost.total_flops / 1e9, 2), *cost.size], again
