"""What zoos share: the rows of a table of published figures, read from a file, and recipes and entries made of them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from attrs import evolve

from det_core.errors import PluginError
from det_core.model.detector_config import DetectorConfig
from det_core.recipe import Published, Recipe
from det_core.slots import BackboneConfig, DenseHeadConfig
from det_core.specs import FeatureSpec
from det_core.testing.isolated_plugins import stub_config
from det_core.zoo import COCO, MASKS, SCHEDULES, Row, compose, published_rows, zoo_entries

TABLE = """\
model,network,kind,variant,schedule,box_ap,memory_gb,modern_box_ap,dataset,source,note
mask-rcnn,r50,fpn,,1x,37.3,,38.2,,,
mask-rcnn,x50-32x4d,fpn,gn-ws,2x,40,7.25,,voc,ours,"long, quoted"
htc,r50,c4,,3x,,,,,,
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "published.csv"


def test_rows_have_the_names_and_figures_of_the_file_in_its_order(table: Path) -> None:
    table.write_text(TABLE, encoding="utf8")
    rows = published_rows(table)
    assert [row.name for row in rows] == [
        "mask-rcnn/r50-fpn-1x",
        "mask-rcnn/x50-32x4d-fpn-gn-ws-2x",
        "htc/r50-c4-3x",
    ]
    assert rows[0] == Row(
        model="mask-rcnn",
        network="r50",
        kind="fpn",
        schedule="1x",
        published=Published(box_ap=37.3, modern_box_ap=38.2),
    )
    assert rows[1].variant == "gn-ws"
    assert rows[1].published == Published(
        box_ap=40.0, memory_gb=7.25, dataset="voc", source="ours", note="long, quoted"
    )
    assert rows[2].published == Published()


def test_columns_may_be_in_any_order_and_figures_left_out(table: Path) -> None:
    table.write_text("schedule,variant,kind,network,model\n2x,,fpn,r50,rpn\n", encoding="utf8")
    assert published_rows(table) == (Row(model="rpn", network="r50", kind="fpn", schedule="2x"),)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (",memory_gb,", ",memory,", 1, "unknown column 'memory'; did you mean \"memory_gb\"?; allowed: model, "),
        (",kind,", ",xyz,", 1, "unknown column 'xyz'; allowed: model, network, kind, "),
        (",memory_gb,", ",box_ap,", 1, "found column 'box_ap' 2 times; expected it once"),
        ("model,network,kind,variant", "model,variant", 1, "missing columns: network, kind; the first line names all"),
        (TABLE, "", 1, "missing columns: model, network, kind, variant, schedule"),
        ("fpn,,1x,37.3,", "fpn,,1x,37.3 %,", 2, "box_ap is '37.3 %'; expected a number such as 38.7, or nothing"),
        ("fpn,,1x,37.3,", "fpn,,1x,nan,", 2, "box_ap is 'nan'; expected a number such as 38.7, or nothing"),
        ("fpn,,1x,37.3,", "fpn,,1x,-37.3,", 2, "box_ap is '-37.3'; expected a number such as 38.7, or nothing"),
        ("2x,40,7.25,", "2x,40,7.25,,", 3, "found 12 cells; expected 11, one per column"),
        ("2x,40,7.25,", "2x,40,", 3, "found 10 cells; expected 11, one per column"),
        ("htc,r50,c4", "\nhtc,r50,c4", 4, "found 0 cells; expected 11, one per column"),
        ("htc,r50,c4,,3x", "mask-rcnn,r50,fpn,,1x", 4, "a second row for mask-rcnn/r50-fpn-1x; expected one row per"),
        ("htc,r50,c4", "htc,,c4", 4, "network is ''; expected a part of the recipe's name, without spaces"),
        (
            "htc,r50,c4,,",
            "htc,r50,c4, gn,",
            4,
            "variant is ' gn'; expected a part of the recipe's name, without spaces",
        ),
        ('"long, quoted"', '"long" quoted', 3, "',' expected after '\"'"),
        ('"long, quoted"', '"long, quoted', 4, "unexpected end of data"),
    ],
)
def test_a_mistake_in_the_file_is_refused_with_its_line(
    table: Path, old: str, new: str, line: int, message: str
) -> None:
    assert TABLE.count(old) == 1
    table.write_text(TABLE.replace(old, new), encoding="utf8")
    with pytest.raises(PluginError) as caught:
        published_rows(table)
    assert str(caught.value).startswith(f"{table}:{line}: {message}")


def test_schedules() -> None:
    found = {name: (s.epochs, s.learning_rate.milestones) for name, s in SCHEDULES.items()}
    assert found == {
        "1x": (12, (8, 11)),
        "20e": (20, (16, 19)),
        "2x": (24, (16, 22)),
        "20-23-24e": (24, (20, 23)),
        "3x": (36, (28, 34)),
        "9x": (110, (102, 107)),
        "100e": (100, (89, 96)),
        "200e": (200, (178, 193)),
        "400e": (400, (356, 385)),
        "90k": (49, (44, 47, 48)),
        "270k": (147, (132, 140, 143)),
        "18k": (17, (12, 15)),
        "24k": (64, (48,)),
    }
    images = 117266  # of COCO, with objects
    for name, steps, batch in (("90k", 90_000, 64), ("270k", 270_000, 64)):
        epochs, milestones = found[name]
        assert epochs == round(steps * batch / images)
        assert milestones == tuple(round(epochs * part) for part in (0.9, 0.95, 0.975))


@stub_config
class Tower(BackboneConfig):
    """A backbone."""

    type: ClassVar[str] = "tower"

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=(64,), strides=(4,))


@stub_config
class Dots(DenseHeadConfig):
    """A head."""

    type: ClassVar[str] = "dots"


DETECTOR = DetectorConfig(backbone=Tower(), dense_head=Dots())
ROWS = (
    Row(model="a", network="n", kind="fpn", schedule="1x", published=Published(box_ap=1.0)),
    Row(model="b", network="n", kind="fpn", schedule="2x"),
)


def test_a_recipe_has_the_schedule_and_figures_of_its_row() -> None:
    recipe = compose(ROWS[0], DETECTOR)
    assert (recipe.name, recipe.detector, recipe.data) == ("a/n-fpn-1x", DETECTOR, COCO)
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch, recipe.optimizer.weight_decay) == (0.02, 16, 1e-4)
    assert (recipe.schedule, recipe.published) == (SCHEDULES["1x"], Published(box_ap=1.0))
    small = evolve(COCO, images_per_rank=1)
    other = compose(ROWS[1], DETECTOR, data=small, evaluation=MASKS, lr=0.01)
    assert (other.schedule, other.data, other.evaluation, other.optimizer.lr) == (SCHEDULES["2x"], small, MASKS, 0.01)


def test_every_row_has_an_entry_and_makes_its_recipe_only_when_asked() -> None:
    made: list[str] = []

    def make(row: Row) -> Recipe:
        made.append(row.name)
        return compose(row, DETECTOR)

    first, second = zoo_entries(
        ROWS,
        make,
        default="b/n-fpn-2x",
        summary=lambda row: f"model {row.model}",
        requires=lambda row: ("another",) if row.model == "b" else (),
    )
    assert made == []
    assert (first.name, first.summary, first.requires) == ("a/n-fpn-1x", "model a", ())
    assert (first.default, first.demo) == (False, False)
    assert (second.default, second.requires, second.published) == (True, ("another",), Published())
    assert first.make() == compose(ROWS[0], DETECTOR)
    assert made == ["a/n-fpn-1x"]
