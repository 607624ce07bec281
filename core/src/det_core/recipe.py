"""A recipe as a value: detector, data, schedule and evaluation, one entry of the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from det_core.config.plain import unstructure
from det_core.config.yaml_text import to_yaml
from det_core.data.data_config import CocoConfig, FolderSettings, SampleConfig, Split, VocConfig
from det_core.errors import ConfigError, Problem, nearest
from det_core.model.detector_config import DetectorConfig
from det_core.settings import configclass, evolve, fields_of, setting
from det_core.slots import DatasetConfig, EvaluatorConfig, TransformConfig

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset

PER_RANK = "images per process and step; the total batch is this times processes times `accumulate`"


@configclass
class DataConfig:
    """What to train and evaluate on."""

    train: DatasetConfig = setting("the data set to train on")
    val: DatasetConfig = setting("the data set to evaluate on")
    root: str = setting("the folder that relative paths are below; --data sets it", default="")
    train_transforms: tuple[TransformConfig, ...] = setting("from decoded image to input", default=())
    test_transforms: tuple[TransformConfig, ...] = setting("the same at test time", default=())
    repeat: int = setting("times an epoch goes over the data", default=1, least=1)
    images_per_rank: int = setting(PER_RANK, default=2, least=1)
    workers: int = setting("loader processes per rank; 0 = none", default=2, least=0)
    group_by_aspect: bool = setting("batches of only wide or only tall images", default=True)
    on_bad_sample: Literal["error", "skip"] = setting(
        "stop at a bad image or annotation, or leave it out, counted and listed", default="error"
    )


@configclass
class OptimizerConfig:
    """The optimiser and its learning rate."""

    kind: Literal["sgd", "adamw"] = setting("torch's own", default="sgd")
    lr: float = setting("learning rate at `lr_batch` images", default=0.02, above=0)
    lr_batch: int = setting(
        "total batch that `lr` is for; the rate is scaled to the actual one; 0 = never scaled", default=16, least=0
    )
    momentum: float = setting("of SGD", default=0.9, least=0)
    weight_decay: float = setting("on all parameters", default=1e-4, least=0)


@configclass
class ScheduleConfig:
    """How long to train, and how."""

    epochs: int = setting("passes over the data", default=12, least=1)
    milestones: tuple[int, ...] = setting("epochs after which the rate drops", default=(8, 11))
    gamma: float = setting("factor at each milestone", default=0.1, above=0)
    warmup_steps: int = setting("linear warm-up", default=500, least=0)
    warmup_factor: float = setting("of the rate at step 0", default=0.001, least=0)
    accumulate: int = setting("micro-batches per step", default=1, least=1)
    clip_norm: float | None = setting("L2 gradient clipping", default=None, above=0)
    ema_decay: float | None = setting(
        "keep an exponential moving average of the weights, and evaluate that", default=None, above=0, below=1
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting("of autocast; fp16 scales losses", default="fp32")
    compile: bool = setting("torch.compile the backbone and neck", default=False)
    seed: int = setting("all random choices come from it", default=0)


@configclass
class EvaluationConfig:
    """What to measure, when, and what counts as best."""

    evaluators: tuple[EvaluatorConfig, ...] = setting("metrics on the validation data")
    every_epochs: int = setting("epochs between evaluations", default=1, least=1)
    best: str = setting("the metric of the best checkpoint", default="box_ap")
    patience: int | None = setting("stop after this many evaluations without a better one", default=None, least=1)

    def __attrs_post_init__(self) -> None:
        names = [e.metric_names() for e in self.evaluators]
        known = [name for some in names if some is not None for name in some]
        if names and None not in names and self.best not in known:
            hint = nearest(self.best, known) or f"; there are: {', '.join(known)}"
            raise ConfigError([Problem("best", f"no evaluator measures {self.best!r}{hint}")])


@configclass
class Published:
    """Figures that others published for a recipe, for comparison; nothing here was measured by this project.

    The plain ones are of the 2019 model zoo; `modern_` ones of its later re-runs, whose conventions the recipes follow.
    """

    box_ap: float | None = setting("COCO AP (percent) of boxes", default=None)
    mask_ap: float | None = setting("COCO AP (percent) of masks", default=None)
    ar1000: float | None = setting("COCO AR (percent) at 1000 proposals", default=None)
    voc_ap50: float | None = setting("VOC2007's 11-point AP (percent) of boxes at IoU .5", default=None)
    memory_gb: float | None = setting("peak memory per GPU in training", default=None)
    train_s_per_iter: float | None = setting("seconds per training step", default=None)
    inference_fps: float | None = setting("images per second at test", default=None)
    modern_box_ap: float | None = setting("COCO AP (percent) of boxes, re-run", default=None)
    modern_mask_ap: float | None = setting("COCO AP (percent) of masks, re-run", default=None)
    modern_ar1000: float | None = setting("COCO AR (percent) at 1000 proposals, re-run", default=None)
    modern_memory_gb: float | None = setting("peak memory per GPU in training, re-run", default=None)
    dataset: str = setting("data set of the figures", default="coco")
    source: str = setting("who published them", default="mmdetection model zoo, 2019 (modern: 3.3.0)")
    note: str = setting("what to know about the figures", default="")


@configclass
class Recipe:
    """Everything a run needs: one entry of the zoo, or a user's own."""

    name: str = setting("the recipe's name")
    detector: DetectorConfig = setting("the model")
    data: DataConfig = setting("what it trains and is tested on")
    optimizer: OptimizerConfig = setting("optimiser and learning rate", default=OptimizerConfig())
    schedule: ScheduleConfig = setting("length and manner of training", default=ScheduleConfig())
    evaluation: EvaluationConfig = setting("metrics")
    published: Published | None = setting("figures others published for it", default=None)

    def to_plain(self) -> dict[str, Any]:
        """Plain data (for JSON or YAML) that `recipe_from_plain` turns into an equal recipe."""
        plain: dict[str, Any] = unstructure(self)
        return plain

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
        """ConfigError unless the data have proposals where, and only where, the detector takes them."""
        detector = self.detector
        wanted = detector.roi_head is not None and detector.dense_head is None
        given = config.has_proposals()
        path = f"data.{split}.proposals"
        if given and not wanted:
            why = "has no roi_head" if detector.roi_head is None else "has a dense_head that proposes boxes itself"
            message = f"is set, but the detector {why}, so it would not be used; leave it out (null)"
            raise ConfigError.at(path, message, self.name)
        if wanted and given is False:
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
        return evolve(self, data=evolve(self.data, root=str(root), train=train, val=val))

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


def _shared(data: FolderSettings) -> dict[str, Any]:
    """The settings that all formats have."""
    return {field.name: getattr(data, field.name) for field in fields_of(FolderSettings)}
