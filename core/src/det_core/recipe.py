"""A recipe: detector + data + schedule + evaluation, one entry of the zoo; loading one by name or from YAML."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs import field, frozen, validators

from det_core.config.base import ConfigError, DatasetConfig, EvaluatorConfig, Problem, TransformConfig, doc
from det_core.config.convert import structure, unstructure
from det_core.config.overrides import apply_overrides, merge, read_yaml, to_yaml
from det_core.config.schema import json_schema
from det_core.data.config import CocoConfig, SampleConfig, Split, VocConfig
from det_core.model.detector_config import DetectorConfig
from det_core.plugins import PluginError, install_hint, nearest, plugin_manager

if TYPE_CHECKING:
    from det_core.data.dataset import DetectionDataset

PER_RANK = doc("images per process and step; the total batch is this times processes times `accumulate`")


@frozen(kw_only=True)
class DataConfig:
    """What to train and evaluate on."""

    train: DatasetConfig = field(metadata=doc("the data set to train on"))
    val: DatasetConfig = field(metadata=doc("the data set to evaluate on"))
    root: str = field(default="", metadata=doc("the folder that relative paths are below; --data sets it"))
    train_transforms: tuple[TransformConfig, ...] = field(default=(), metadata=doc("from decoded image to input"))
    test_transforms: tuple[TransformConfig, ...] = field(default=(), metadata=doc("the same at test time"))
    repeat: int = field(default=1, validator=validators.ge(1), metadata=doc("times an epoch goes over the data"))
    images_per_rank: int = field(default=2, validator=validators.ge(1), metadata=PER_RANK)
    workers: int = field(default=2, validator=validators.ge(0), metadata=doc("loader processes per rank; 0 = none"))
    group_by_aspect: bool = field(default=True, metadata=doc("batches of only wide or only tall images"))
    on_bad_sample: Literal["error", "skip"] = field(
        default="error", metadata=doc("stop at a bad image or annotation, or leave it out, counted and listed")
    )


@frozen(kw_only=True)
class OptimizerConfig:
    """The optimiser and its learning rate."""

    kind: Literal["sgd", "adamw"] = field(default="sgd", metadata=doc("torch's own"))
    lr: float = field(default=0.02, validator=validators.gt(0), metadata=doc("learning rate at `lr_batch` images"))
    lr_batch: int = field(
        default=16,
        validator=validators.ge(0),
        metadata=doc("total batch that `lr` is for; the rate is scaled to the actual one; 0 = never scaled"),
    )
    momentum: float = field(default=0.9, validator=validators.ge(0), metadata=doc("of SGD"))
    weight_decay: float = field(default=1e-4, validator=validators.ge(0), metadata=doc("on all parameters"))


@frozen(kw_only=True)
class ScheduleConfig:
    """How long to train, and how."""

    epochs: int = field(default=12, validator=validators.ge(1), metadata=doc("passes over the data"))
    milestones: tuple[int, ...] = field(default=(8, 11), metadata=doc("epochs after which the rate drops"))
    gamma: float = field(default=0.1, validator=validators.gt(0), metadata=doc("factor at each milestone"))
    warmup_steps: int = field(default=500, validator=validators.ge(0), metadata=doc("linear warm-up"))
    warmup_factor: float = field(default=0.001, validator=validators.ge(0), metadata=doc("of the rate at step 0"))
    accumulate: int = field(default=1, validator=validators.ge(1), metadata=doc("micro-batches per step"))
    clip_norm: float | None = field(
        default=None, validator=validators.optional(validators.gt(0)), metadata=doc("L2 gradient clipping")
    )
    ema_decay: float | None = field(
        default=None,
        validator=validators.optional([validators.gt(0), validators.lt(1)]),
        metadata=doc("keep an exponential moving average of the weights, and evaluate that"),
    )
    precision: Literal["fp32", "bf16", "fp16"] = field(default="fp32", metadata=doc("of autocast; fp16 scales losses"))
    compile: bool = field(default=False, metadata=doc("torch.compile the backbone and neck"))
    seed: int = field(default=0, metadata=doc("all random choices come from it"))


@frozen(kw_only=True)
class EvaluationConfig:
    """What to measure, when, and what counts as best."""

    evaluators: tuple[EvaluatorConfig, ...] = field(metadata=doc("metrics on the validation data"))
    every_epochs: int = field(default=1, validator=validators.ge(1), metadata=doc("epochs between evaluations"))
    best: str = field(default="box_ap", metadata=doc("the metric of the best checkpoint"))
    patience: int | None = field(
        default=None,
        validator=validators.optional(validators.ge(1)),
        metadata=doc("stop after this many evaluations without a better one"),
    )

    def __attrs_post_init__(self) -> None:
        names = [e.metric_names() for e in self.evaluators]
        known = [name for some in names if some is not None for name in some]
        if names and None not in names and self.best not in known:
            hint = nearest(self.best, known) or f"; there are: {', '.join(known)}"
            raise ConfigError([Problem("best", f"no evaluator measures {self.best!r}{hint}")])


@frozen(kw_only=True)
class Published:
    """Figures that others published for a recipe, for comparison; nothing here was measured by this project.

    The plain ones are of the 2019 model zoo; `modern_` ones of its later re-runs, whose conventions the recipes follow.
    """

    box_ap: float | None = field(default=None, metadata=doc("COCO AP (percent) of boxes"))
    mask_ap: float | None = field(default=None, metadata=doc("COCO AP (percent) of masks"))
    ar1000: float | None = field(default=None, metadata=doc("COCO AR (percent) at 1000 proposals"))
    voc_ap50: float | None = field(default=None, metadata=doc("VOC2007's 11-point AP (percent) of boxes at IoU .5"))
    memory_gb: float | None = field(default=None, metadata=doc("peak memory per GPU in training"))
    train_s_per_iter: float | None = field(default=None, metadata=doc("seconds per training step"))
    inference_fps: float | None = field(default=None, metadata=doc("images per second at test"))
    modern_box_ap: float | None = field(default=None, metadata=doc("COCO AP (percent) of boxes, re-run"))
    modern_mask_ap: float | None = field(default=None, metadata=doc("COCO AP (percent) of masks, re-run"))
    modern_ar1000: float | None = field(default=None, metadata=doc("COCO AR (percent) at 1000 proposals, re-run"))
    modern_memory_gb: float | None = field(default=None, metadata=doc("peak memory per GPU in training, re-run"))
    dataset: str = field(default="coco", metadata=doc("data set of the figures"))
    source: str = field(default="mmdetection model zoo, 2019 (modern: 3.3.0)", metadata=doc("who published them"))
    note: str = field(default="", metadata=doc("what to know about the figures"))


@frozen(kw_only=True)
class Recipe:
    """Everything a run needs: one entry of the zoo, or a user's own."""

    name: str = field(metadata=doc("the recipe's name"))
    detector: DetectorConfig = field(metadata=doc("the model"))
    data: DataConfig = field(metadata=doc("what it trains and is tested on"))
    optimizer: OptimizerConfig = field(default=OptimizerConfig(), metadata=doc("optimiser and learning rate"))
    schedule: ScheduleConfig = field(default=ScheduleConfig(), metadata=doc("length and manner of training"))
    evaluation: EvaluationConfig = field(metadata=doc("metrics"))
    published: Published | None = field(default=None, metadata=doc("figures others published for it"))

    def to_plain(self) -> dict[str, Any]:
        """Plain data (for JSON or YAML) that `from_plain` turns into an equal recipe."""
        plain: dict[str, Any] = unstructure(self)
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any], source: str = "") -> Recipe:
        """A recipe from plain data; ConfigError with every problem."""
        return structure(plain, cls, source)

    def open_train(self) -> DetectionDataset:
        """Its training data, with the masks and maps that the detector learns; DetError for what is wrong with them."""
        self._check_proposals("train", self.data.train)
        data = self.data.train.build(
            self.data.root,
            masks=self.detector.needs_masks(),
            semantic=self.detector.needs_semantic(),
            on_bad_sample=self.data.on_bad_sample,
        )
        self._check_semantic(data)
        return data

    def open_val(self) -> DetectionDataset:
        """Its validation data, with masks if an evaluator wants them; DetError for what is wrong with them."""
        self._check_proposals("val", self.data.val)
        masks = any(e.needs_masks() for e in self.evaluation.evaluators)
        return self.data.val.build(self.data.root, masks=masks, on_bad_sample=self.data.on_bad_sample)

    def _check_semantic(self, data: DetectionDataset) -> None:
        """ConfigError unless the training data bring semantic maps whose ids the detector has classes for."""
        head = self.detector.roi_head
        if head is None or not head.needs_semantic():
            return
        path, known = "data.train", head.semantic_classes()
        if not data.semantic_classes:
            kind = f"{self.data.train.type!r}"
            message = f"roi_head {head.type!r} trains on semantic maps, but {data.name} ({kind}) brings none; "
            raise ConfigError.at(path, message + "use a data set that does, or a head without them", self.name)
        if known < data.semantic_classes:
            message = (
                f"the semantic maps of {data.name} may hold ids 0..{data.semantic_classes - 1}, but roi_head "
                f"{head.type!r} tells {known} apart; lower `semantic_classes` of the data set where its maps hold "
                "fewer, or raise the head's"
            )
            raise ConfigError.at(path, message, self.name)

    def _check_proposals(self, split: str, config: DatasetConfig) -> None:
        """ConfigError unless the data bring proposals where, and only where, the detector takes them.

        A data set of a plugin's that has no setting `proposals` is trusted to bring them by its own means.
        """
        detector = self.detector
        wanted = detector.roi_head is not None and detector.dense_head is None
        given = getattr(config, "proposals", None) is not None
        path = f"data.{split}.proposals"
        if given and not wanted:
            why = "has no roi_head" if detector.roi_head is None else "has a dense_head that proposes boxes itself"
            message = f"is set, but the detector {why}, so it would not be used; leave it out (null)"
            raise ConfigError.at(path, message, self.name)
        if wanted and not given and hasattr(config, "proposals"):
            data = f" --data {self.data.root}" if self.data.root else ""
            message = (
                "is not set, but the detector has a roi_head and no dense_head that proposes boxes; make the file from "
                f"an RPN with `det-core proposals --checkpoint RPN_RUN{data} --split {split} -o {split}.safetensors` "
                f"and give it with `--set {path}=FILE`, or use a proposal head (dense_head: type: rpn)"
            )
            raise ConfigError.at(path, message, self.name)

    def with_data(self, root: str | Path) -> Recipe:
        """The same recipe on the data below `root`; in place of the bundled sample, on a COCO-format folder.

        A folder that only has the other one of COCO's format and VOC's is read in that: for its usual splits, with the
        classes that its annotations name. Data whose files the recipe names stay as they are.
        """
        formats = _formats(root)
        train, val = (_on(getattr(self.data, split), split, formats) for split in ("train", "val"))
        return attrs.evolve(self, data=attrs.evolve(self.data, root=str(root), train=train, val=val))

    def to_yaml(self) -> str:
        return to_yaml(self.to_plain())


def _formats(root: str | Path) -> frozenset[str]:
    """Which layouts of data sets a folder has; none where there is no such folder, which opening it will say."""
    if not Path(root).expanduser().is_dir():
        return frozenset()
    from det_core.data.layout import formats_at

    return formats_at(root)


def _on(data: DatasetConfig, split: Split, formats: frozenset[str]) -> DatasetConfig:
    """A data set on a folder of these formats, as `with_data` says."""
    if isinstance(data, SampleConfig):
        data = CocoConfig(split=split, proposals=data.proposals, max_proposals=data.max_proposals)
    if isinstance(data, CocoConfig) and formats == {"voc"} and not (data.annotations or data.images):
        return VocConfig(classes=None, **_shared(data))
    if isinstance(data, VocConfig) and formats == {"coco"} and data.sets is None:
        return CocoConfig(**_shared(data))
    return data


def _shared(data: CocoConfig | VocConfig) -> dict[str, Any]:
    """The settings that both formats have."""
    return {
        "split": data.split,
        "filter_empty": data.filter_empty,
        "min_size": data.min_size,
        "proposals": data.proposals,
        "max_proposals": data.max_proposals,
    }


@frozen(kw_only=True)
class RecipeEntry:
    """A zoo entry as a plugin lists it: cheap to make, its recipe is made only when asked for.

    requires: distributions beyond the plugin's own. default, demo: what `--plugin` means with and without `--data`.
    """

    name: str
    make: Callable[[], Recipe]
    requires: tuple[str, ...] = ()
    published: Published | None = None
    default: bool = False
    demo: bool = False
    summary: str = ""

    def missing(self) -> list[str]:
        """Required distributions that are not installed."""
        return [name for name in self.requires if not _installed(name)]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by zoo name or from a YAML file, with `path=value` overrides laid on it.

    A YAML file may say `extends: NAME` and give only what differs. Raises ConfigError with every problem found,
    PluginError for a name nobody provides or whose requirements are not installed (with what to install), DetError
    for a file that cannot be read.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith((".yaml", ".yml", ".json")):
        plain = _read(Path(text))
    else:
        plain = zoo_recipe(text).to_plain()
    source = text if not overrides else f"{text} with --set"
    return Recipe.from_plain(apply_overrides(plain, list(overrides)), source)


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe file, with all installed components, so that an editor completes and checks it.

    Nothing is required in it, since a file that extends a recipe gives only what differs; loading checks the rest.
    """
    schema = json_schema(Recipe, "det recipe", partial=True)
    properties = schema["$defs"]["Recipe"]["properties"]
    names = {"anyOf": [{"enum": list(plugin_manager().recipes())}, {"type": "string"}]}
    extends = {"description": "the recipe of a plugin that this file changes", **names}
    schema["$defs"]["Recipe"]["properties"] = {"extends": extends, **properties}
    return schema


def zoo_recipe(name: str) -> Recipe:
    """The recipe that a plugin provides under this name."""
    entry = plugin_manager().recipe_entry(name)
    missing = entry.missing()
    if missing:
        hints = "; ".join(f"{m}: {install_hint(m)}" for m in missing)
        raise PluginError(f"recipe {name!r} needs what is not installed: {hints}")
    return entry.make()


def _read(path: Path) -> dict[str, Any]:
    """The plain data of a recipe file, laid on what it extends."""
    plain = read_yaml(path)
    base_name = plain.pop("extends", None)
    if base_name is None:
        return {"name": path.stem, **plain}
    if not isinstance(base_name, str):
        raise ConfigError.at("extends", f"found {base_name!r}, expected the name of one recipe", str(path))
    if base_name.endswith((".yaml", ".yml", ".json")):
        raise ConfigError.at(
            "extends",
            f"found the file {base_name!r}, expected a recipe's name: extending goes one step, from a recipe that a "
            "plugin provides (`det-core recipes`)",
            str(path),
        )
    try:
        base = zoo_recipe(base_name)
    except PluginError as error:
        raise ConfigError.at("extends", str(error), str(path)) from None
    merged: dict[str, Any] = merge(attrs.evolve(base, name=path.stem, published=None).to_plain(), plain)
    return merged
