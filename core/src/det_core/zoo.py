"""Helpers for the zoos of all plugins: rows of published figures, data, schedules, demos. Imports no torch.

A plugin keeps its figures in `published.csv`, one row per recipe. Its `recipes.py` turns rows into recipes:

    ROWS = published_rows(Path(__file__).with_name("published.csv"))
    ENTRIES = zoo_entries(ROWS, baseline, default="retinanet/r50-fpn-1x", summary=lambda row: SUMMARY)
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from det_core.conventions import spoken, under
from det_core.data.augmentation_config import CopyPasteConfig, FixedSizeCropConfig, ScaleJitterConfig
from det_core.data.data_config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig, VocConfig
from det_core.errors import PluginError, nearest
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.model.detector_config import DetectorConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import SGDConfig
from det_core.recipe import DataConfig, EvaluationConfig, Published, Recipe, ScheduleConfig
from det_core.settings import evolve, fields_of


def _steps(epochs: int, *milestones: int) -> ScheduleConfig:
    return ScheduleConfig(epochs=epochs, learning_rate=StepRateConfig(milestones=milestones))


SCHEDULES = {
    "1x": _steps(12, 8, 11),
    "20e": _steps(20, 16, 19),
    "2x": _steps(24, 16, 22),
    "20-23-24e": _steps(24, 20, 23),
    "3x": _steps(36, 28, 34),
    "9x": _steps(110, 102, 107),
    # In numbers of epochs or steps, as the source has them.
    "100e": _steps(100, 89, 96),
    "200e": _steps(200, 178, 193),
    "400e": _steps(400, 356, 385),
    "90k": _steps(49, 44, 47, 48),  # of 64 images of COCO
    "270k": _steps(147, 132, 140, 143),
    "18k": _steps(17, 12, 15),  # of 16 images of VOC
    "24k": _steps(64, 48),  # of 8 images of Cityscapes
}
RESIZE = ResizeConfig(scales=((1333, 800),))
COCO_TRAIN = CocoConfig(split="train", filter_empty=True, min_size=32)
COCO_VAL = CocoConfig(split="val")
COCO = DataConfig(train=COCO_TRAIN, val=COCO_VAL, train_transforms=(RESIZE, FlipConfig()), test_transforms=(RESIZE,))
# Train on the union of VOC2007 and VOC2012, test on VOC2007.
VOC_TRAIN = VocConfig(split="train", sets=("VOC2007/trainval", "VOC2012/trainval"), filter_empty=True, min_size=32)
VOC_VAL = VocConfig(split="val", sets=("VOC2007/test",))

BOXES = EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),))
MASKS = EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box", "mask")),))
PROPOSALS = EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("proposal",)),), best="ar1000")


@frozen(kw_only=True)
class Row:
    """A row of a table of published baselines: the parts of the recipe's name, and the figures.

    network: the backbone. kind: `fpn` or `c4`; for SSD, the image size. variant: the difference from the plain model,
    such as `gn`; for SSD, the data set.
    """

    model: str
    network: str
    kind: str
    variant: str = ""
    schedule: str
    published: Published = Published()

    @property
    def name(self) -> str:
        """The name of the recipe: `<model>/<network>-<kind>[-<variant>]-<schedule>`."""
        parts = [self.network, self.kind, self.variant, self.schedule]
        return f"{self.model}/{'-'.join(part for part in parts if part)}"


NAME_COLUMNS = ("model", "network", "kind", "variant", "schedule")
FIGURE_COLUMNS = {a.name: a.default is None for a in fields_of(Published)}  # name to whether it is a number


def published_rows(file: Path) -> tuple[Row, ...]:
    """The rows of a CSV file of published figures, in order.

    The first line names the columns: those of `NAME_COLUMNS`, and any fields of `Published`. An empty cell means the
    field's default, None for a number.

    Raises:
        PluginError: with file and line, for an unknown, missing or repeated column, a wrong number of cells, a cell
            that is not a number, and a second row for a recipe.
    """
    rows: dict[str, Row] = {}
    with file.open(encoding="utf8", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            columns = _columns(next(reader, []))
            for cells in reader:
                row = _row(columns, cells)
                if row.name in rows:
                    raise ValueError(f"a second row for {row.name}; expected one row per recipe")
                rows[row.name] = row
        except (csv.Error, ValueError) as error:
            raise PluginError(f"{file}:{max(reader.line_num, 1)}: {error}") from None
    return tuple(rows.values())


def _columns(found: list[str]) -> list[str]:
    """Check the column names."""
    known = (*NAME_COLUMNS, *FIGURE_COLUMNS)
    for column in found:
        if column not in known:
            raise ValueError(f"unknown column {column!r}{nearest(column, known)}; allowed: {', '.join(known)}")
        if found.count(column) > 1:
            raise ValueError(f"found column {column!r} {found.count(column)} times; expected it once")
    missing = [column for column in NAME_COLUMNS if column not in found]
    if missing:
        raise ValueError(f"missing columns: {', '.join(missing)}; the first line names all columns")
    return found


def _row(columns: list[str], cells: list[str]) -> Row:
    """One line of the file; ValueError for an invalid cell or a wrong number of cells."""
    if len(cells) != len(columns):
        raise ValueError(f"found {len(cells)} cells; expected {len(columns)}, one per column")
    names: dict[str, str] = {}
    figures: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        if column in NAME_COLUMNS:
            if not re.fullmatch(r"\S*" if column == "variant" else r"\S+", cell):
                raise ValueError(f"{column} is {cell!r}; expected a part of the recipe's name, without spaces")
            names[column] = cell
        elif cell and not FIGURE_COLUMNS[column]:
            figures[column] = cell
        elif cell:
            if not re.fullmatch(r"\d+(\.\d+)?", cell):
                raise ValueError(f"{column} is {cell!r}; expected a number such as 38.7, or nothing")
            figures[column] = float(cell)
    return Row(**names, published=Published(**figures))


def compose(
    row: Row,
    detector: DetectorConfig,
    *,
    data: DataConfig = COCO,
    evaluation: EvaluationConfig = BOXES,
    lr: float = 0.02,
) -> Recipe:
    """The recipe of a row with this detector, on COCO by default; `lr` is for a total batch of 16 images."""
    return Recipe(
        name=row.name,
        detector=detector,
        data=data,
        optimizer=SGDConfig(lr=lr, lr_batch=16),
        schedule=SCHEDULES[row.schedule],
        evaluation=evaluation,
        published=row.published,
    )


def compose_torchvision(
    name: str, detector: DetectorConfig, *, evaluation: EvaluationConfig = BOXES, lr: float
) -> Recipe:
    """A recipe with torchvision's training settings of detectors with a ResNet; it rounds resized sides down.

    The conventions are those of torchvision/models/detection, version 0.29. One difference in training remains:
    RetinaNet's losses are normalised by the positive anchors of all images, while torchvision normalises those of each
    image and averages over images.
    """
    resize = evolve(RESIZE, rounding="down", arithmetic="float")
    return Recipe(
        name=name,
        detector=detector,
        data=evolve(COCO, train_transforms=(resize, FlipConfig()), test_transforms=(resize,)),
        optimizer=SGDConfig(lr=lr, lr_batch=16),
        schedule=_steps(26, 16, 22),
        evaluation=evaluation,
    )


def evolve_part(
    recipe: Recipe, part: Literal["backbone", "neck", "dense_head", "roi_head"], /, **changes: Any
) -> Recipe:
    """A recipe with other settings of a part that its detector has."""
    config = getattr(recipe.detector, part)
    return evolve(recipe, detector=evolve(recipe.detector, **{part: evolve(config, **changes)}))


# Stronger training


def multi_scale(recipe: Recipe) -> Recipe:
    """A recipe with mmdet's multi-scale training of 36 epochs: short edges of 640 to 800 pixels.

    An epoch contains the data three times, and there are 12.
    """
    resize = evolve(RESIZE, scales=((1333, 640), (1333, 800)), mode="range")
    data = evolve(recipe.data, train_transforms=(resize, FlipConfig()), repeat=3)
    return evolve(
        recipe, data=data, schedule=evolve(recipe.schedule, epochs=12, learning_rate=StepRateConfig(milestones=(9, 11)))
    )


STANDARD_JITTER = (0.8, 1.25)
LARGE_SCALE_JITTER = (0.1, 2.0)
CROP = FixedSizeCropConfig(boxes="masks")


def jitter_scale(
    recipe: Recipe,
    factors: tuple[float, float] = LARGE_SCALE_JITTER,
    *,
    crop: FixedSizeCropConfig = CROP,
    copy_paste: bool = False,
) -> Recipe:
    """A recipe trained on square crops of images resized at random (Ghiasi et al., 2021), in batches of 64 images.

    factors: standard or large-scale jitter. crop: its size is what a factor of 1 fits. copy_paste: paste objects of
    another such crop. Tests are not changed.
    """
    jitter = ScaleJitterConfig(size=crop.size, factors=factors)
    transforms = (jitter, crop, FlipConfig(), *((CopyPasteConfig(),) if copy_paste else ()))
    return evolve(
        recipe,
        data=evolve(recipe.data, train_transforms=transforms, group_by_aspect=False),  # all crops are square
        optimizer=evolve(recipe.optimizer, lr=0.1, lr_batch=64, weight_decay=4e-5),
        schedule=evolve(recipe.schedule, warmup_steps=500, warmup_factor=0.067),
    )


SHORT_EDGES = (640, 672, 704, 736, 768, 800)  # of training images in detectron2
# Detectron's mean, which mmdet 0.x and 1.x use for caffe-style weights.
DETECTRON_MEAN = (102.9801, 115.9465, 122.7717)


def name_under(source: str, name: str) -> str:
    """The name of a recipe with the conventions of a source: `<model>/<source>-<rest of the name>`."""
    model, _, rest = name.partition("/")
    return f"{model}/{source}-{rest}"


def as_mmdet1(recipe: Recipe, name: str) -> Recipe:
    """A recipe with the conventions of mmdet 0.x and 1.x, for its weights: `<model>/mmdet1-<rest of the name>`.

    Losses, assignment and numbers of proposals are the caller's. The published figures of 2019 are those of such
    weights.
    """
    published = _figures_of_2019(recipe.published)
    made = evolve(under(recipe, "mmdet1"), name=name_under("mmdet1", name), published=published)
    preprocess = made.detector.preprocess
    if preprocess.order == "rgb":
        return made
    return evolve(made, detector=evolve(made.detector, preprocess=evolve(preprocess, mean=DETECTRON_MEAN)))


def as_detectron2(recipe: Recipe, row: Row, short: Sequence[int] = SHORT_EDGES, long: int = 1333) -> Recipe:
    """A recipe with the conventions of detectron2, for its weights: `<model>/detectron2-<rest of the row's name>`.

    Images are padded to 32 only for a pyramid, and trained with short edges drawn from `short`. The warm-up takes 1000
    steps, and norms do not decay. Losses, assignment and numbers of proposals are the caller's.
    """
    train, *others = recipe.data.train_transforms
    assert isinstance(train, ResizeConfig)
    sizes = evolve(train, scales=tuple((long, edge) for edge in short))
    test = evolve(train, scales=((long, max(short)),))
    data = evolve(recipe.data, train_transforms=(sizes, *others), test_transforms=(test,))
    made = under(evolve(recipe, data=data), "detectron2")
    divisor = 1 if made.detector.neck is None else 32
    preprocess = evolve(made.detector.preprocess, pad_divisor=divisor)
    return evolve(
        made,
        name=name_under("detectron2", row.name),
        detector=evolve(made.detector, preprocess=preprocess),
        optimizer=evolve(recipe.optimizer, norm_weight_decay=0.0),
        schedule=evolve(recipe.schedule, warmup_steps=1000),
        published=_published_by("detectron2", row.published),
    )


def before_detectron2(recipe: Recipe, row: Row, source: str) -> Recipe:
    """A recipe with the conventions of Detectron or maskrcnn-benchmark, for its weights: `<model>/<source>-<rest>`.

    Both train and test at one image size, on images minus Detectron's mean.
    """
    made = under(recipe, source)
    preprocess = evolve(
        made.detector.preprocess,
        order="bgr",
        mean=DETECTRON_MEAN,
        std=(1.0, 1.0, 1.0),
        pad_divisor=1 if made.detector.neck is None else 32,
    )
    return evolve(
        made,
        name=name_under(source, row.name),
        detector=evolve(made.detector, preprocess=preprocess),
        published=_published_by(source, row.published),
    )


def detectron_entries(
    source: str,
    rows: Sequence[Row],
    make: Callable[[Row], Recipe],
    summary: Callable[[Row], str],
    requires: Callable[[Row], tuple[str, ...]] = lambda row: (),
) -> tuple[RecipeEntry, ...]:
    """The zoo entries of a table of models of detectron2, Detectron or maskrcnn-benchmark.

    make: makes the recipe of a row.
    """
    return _entries(rows, make, summary, requires, lambda row: _published_by(source, row.published), weights_of=source)


def _published_by(source: str, published: Published) -> Published:
    return evolve(published, source=f"{spoken(source)}'s model zoo")


def _figures_of_2019(published: Published | None) -> Published | None:
    """The figures without those of later re-runs."""
    if published is None:
        return None
    later = {name: None for name in FIGURE_COLUMNS if name.startswith("modern_")}
    return evolve(published, source="mmdetection model zoo, 2019", **later)


def zoo_entries(
    rows: Sequence[Row],
    make: Callable[[Row], Recipe],
    *,
    default: str,
    summary: Callable[[Row], str],
    requires: Callable[[Row], tuple[str, ...]] = lambda row: (),
    mmdet1: Callable[[Row], Recipe] | None = None,
) -> tuple[RecipeEntry, ...]:
    """The zoo entries of a table of baselines.

    make: makes the recipe of a row. default: the name of the plugin's default recipe. mmdet1: makes the recipe of a row
    with the conventions of mmdet 0.x and 1.x (see `as_mmdet1`), which is an entry of its own.
    """
    entries = _entries(rows, make, summary, requires, lambda row: row.published, default=default)
    if mmdet1 is None:
        return entries
    older = _entries(rows, mmdet1, summary, requires, lambda row: _figures_of_2019(row.published), weights_of="mmdet1")
    return *entries, *older


def _entries(
    rows: Sequence[Row],
    make: Callable[[Row], Recipe],
    summary: Callable[[Row], str],
    requires: Callable[[Row], tuple[str, ...]],
    published: Callable[[Row], Published | None],
    *,
    default: str = "",
    weights_of: str = "",
) -> tuple[RecipeEntry, ...]:
    return tuple(
        RecipeEntry(
            name=name_under(weights_of, row.name) if weights_of else row.name,
            make=partial(make, row),
            requires=requires(row),
            published=published(row),
            default=row.name == default,
            summary=summary(row),
            weights_of=weights_of,
        )
        for row in rows
    )


def sample_recipe(
    name: str,
    detector: DetectorConfig,
    evaluation: EvaluationConfig,
    *,
    lr: float,
    weight_decay: float = 1e-4,
    epochs: int = 30,
    keep_ratio: bool = True,
) -> Recipe:
    """A recipe for a small model on the bundled sample, from random weights: a demo that takes minutes on a CPU.

    Images have 320 pixels and are flipped both ways. The learning rate drops after 3/4 and 9/10 of the epochs.
    """
    resize = ResizeConfig(scales=((320, 320),), keep_ratio=keep_ratio)
    return Recipe(
        name=name,
        detector=detector,
        data=DataConfig(
            train=SampleConfig(split="train"),
            val=SampleConfig(split="val"),
            train_transforms=(resize, FlipConfig(vertical_probability=0.5)),
            test_transforms=(resize,),
        ),
        optimizer=SGDConfig(lr=lr, lr_batch=0, weight_decay=weight_decay),
        schedule=ScheduleConfig(
            epochs=epochs,
            learning_rate=StepRateConfig(milestones=(epochs * 3 // 4, epochs * 9 // 10)),
            warmup_steps=20,
            warmup_factor=0.01,
            clip_norm=10.0,
        ),
        evaluation=evaluation,
    )
