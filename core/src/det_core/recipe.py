"""The configuration of a whole run: detector, data, schedule and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from det_core.config.plain import unstructure
from det_core.config.yaml_text import to_yaml
from det_core.data.data_config import CocoConfig, FolderSettings, SampleConfig, VocConfig
from det_core.errors import ConfigError, Problem, nearest
from det_core.model.detector_config import DetectorConfig
from det_core.settings import configclass, evolve, fields_of, setting
from det_core.slots import DatasetConfig, EvaluatorConfig, TransformConfig
from det_core.specs import OnBadSample, Split

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset

PER_RANK = "images per process and micro-batch; the total batch is this times processes times `accumulate`"


@configclass
class DataConfig:
    """The data to train and evaluate on, and how it is loaded."""

    train: DatasetConfig = setting("the data set to train on")
    val: DatasetConfig = setting("the data set to evaluate on")
    root: str = setting("the folder that paths are relative to; --data sets it", default="")
    train_transforms: tuple[TransformConfig, ...] = setting("transforms of training images", default=())
    test_transforms: tuple[TransformConfig, ...] = setting("transforms of test images", default=())
    repeat: int = setting("passes over the data per epoch", default=1, least=1)
    images_per_rank: int = setting(PER_RANK, default=2, least=1)
    workers: int = setting("loader processes per rank; 0: load in the main process", default=2, least=0)
    group_by_aspect: bool = setting("make batches of only wide or only tall images", default=True)
    on_bad_sample: OnBadSample = setting(
        "bad images and annotations: stop with an error, or skip, count and list them", default="error"
    )

    def __attrs_post_init__(self) -> None:
        for i, transform in enumerate(self.test_transforms):
            if transform.mixes():
                message = (
                    f"{transform.type!r} mixes an image with others of the data set, which only training gives; use it "
                    "in `train_transforms`"
                )
                raise ConfigError.at(f"test_transforms[{i}]", message)


@configclass
class OptimizerConfig:
    """The optimiser and its learning rate."""

    kind: Literal["sgd", "adamw"] = setting("torch's SGD or AdamW", default="sgd")
    lr: float = setting("learning rate for a total batch of `lr_batch` images", default=0.02, above=0)
    lr_batch: int = setting(
        "total batch that `lr` is for; `lr` is scaled to the actual total batch; 0: do not scale", default=16, least=0
    )
    momentum: float = setting("momentum of SGD", default=0.9, least=0)
    weight_decay: float = setting("weight decay of all parameters", default=1e-4, least=0)
    norm_weight_decay: float | None = setting(
        "weight decay of the parameters of norms; null: as of all others", default=None, least=0
    )


@configclass
class ScheduleConfig:
    """Length of training, learning-rate schedule and precision."""

    epochs: int = setting("passes over the data", default=12, least=1)
    milestones: tuple[int, ...] = setting("epochs after which the learning rate drops", default=(8, 11))
    gamma: float = setting("factor on the learning rate at each milestone", default=0.1, above=0)
    warmup_steps: int = setting("steps of linear warm-up", default=500, least=0)
    warmup_factor: float = setting("factor on the learning rate at step 0", default=0.001, least=0)
    accumulate: int = setting("micro-batches per step", default=1, least=1)
    clip_norm: float | None = setting("maximum L2 norm of gradients; null: no clipping", default=None, above=0)
    ema_decay: float | None = setting(
        "decay of an exponential moving average of the weights, which is then evaluated; null: none",
        default=None,
        above=0,
        below=1,
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting("autocast dtype; fp16 scales the loss", default="fp32")
    compile: bool = setting("torch.compile the backbone, the neck and a dense head that allows it", default=False)
    seed: int = setting(
        "seed of all random choices, which draw from torch; Python's `random` and numpy are not seeded", default=0
    )


@configclass
class EvaluationConfig:
    """Which metrics to compute, how often, and which one selects the best checkpoint."""

    evaluators: tuple[EvaluatorConfig, ...] = setting("metrics on the validation data")
    every_epochs: int = setting("epochs between evaluations", default=1, least=1)
    best: str = setting("the metric that selects the best checkpoint", default="box_ap")
    patience: int | None = setting("stop after this many evaluations without improvement", default=None, least=1)

    def __attrs_post_init__(self) -> None:
        names = [e.metric_names() for e in self.evaluators]
        known = [name for group in names if group is not None for name in group]
        if names and None not in names and self.best not in known:
            hint = nearest(self.best, known) or f"; available: {', '.join(known)}"
            raise ConfigError([Problem("best", f"no evaluator measures {self.best!r}{hint}")])


@configclass
class Published:
    """Figures that others published for a recipe, for comparison. None was measured by this project.

    `source` says by whom. Of the 2019 zoo, `modern_` figures are from later re-runs, whose conventions the recipes
    follow.
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
    dataset: str = setting("the data set of the figures", default="coco")
    source: str = setting("who published them", default="mmdetection model zoo, 2019 (modern: 3.3.0)")
    note: str = setting("remarks on the figures", default="")


@configclass
class Recipe:
    """The configuration of a run: an entry of the zoo, or a user's recipe."""

    name: str = setting("the recipe's name")
    detector: DetectorConfig = setting("the model")
    data: DataConfig = setting("training and validation data")
    optimizer: OptimizerConfig = setting("optimiser and learning rate", default=OptimizerConfig())
    schedule: ScheduleConfig = setting("length and schedule of training", default=ScheduleConfig())
    evaluation: EvaluationConfig = setting("metrics")
    published: Published | None = setting("figures that others published for it", default=None)

    def to_plain(self) -> dict[str, Any]:
        """Plain data (for JSON or YAML) that `recipe_from_plain` turns into an equal recipe."""
        plain: dict[str, Any] = unstructure(self)
        return plain

    def trains_on_masks(self) -> bool:
        """Whether training requires instance masks: of the detector, or of a transform."""
        return self.detector.needs_masks() or any(t.needs_masks() for t in self.data.train_transforms)

    def open_train(self) -> DetectionDataset:
        """Open the training data, with the masks and semantic maps that training needs; DetError if invalid."""
        self._check_proposals("train", self.data.train)
        data = self.data.train.build(
            self.data.root,
            masks=self.trains_on_masks(),
            semantic=self.detector.needs_semantic(),
            on_bad_sample=self.data.on_bad_sample,
        )
        self._check_semantic(data)
        return data

    def open_val(self) -> DetectionDataset:
        """Open the validation data, with masks if an evaluator needs them; DetError if invalid."""
        self._check_proposals("val", self.data.val)
        masks = any(e.needs_masks() for e in self.evaluation.evaluators)
        return self.data.val.build(self.data.root, masks=masks, on_bad_sample=self.data.on_bad_sample)

    def _check_semantic(self, data: DetectionDataset) -> None:
        """Raise ConfigError if the detector needs semantic maps that the data lack, or that have more ids than it."""
        head = self.detector.roi_head
        if head is None or not head.needs_semantic():
            return
        path, known = "data.train", head.semantic_classes()
        if not data.semantic_classes:
            kind = f"{self.data.train.type!r}"
            message = f"roi_head {head.type!r} trains on semantic maps, but {data.name} ({kind}) has none; "
            raise ConfigError.at(path, message + "use a data set that has, or a head that needs none", self.name)
        if known < data.semantic_classes:
            message = (
                f"the semantic maps of {data.name} may have ids 0..{data.semantic_classes - 1}, but roi_head "
                f"{head.type!r} has {known} semantic classes; lower `semantic_classes` of the data set if its maps "
                "have fewer ids, or raise the head's"
            )
            raise ConfigError.at(path, message, self.name)

    def _check_proposals(self, split: str, config: DatasetConfig) -> None:
        """Raise ConfigError if the detector needs proposals and the data have none, or the reverse."""
        detector = self.detector
        needed = detector.roi_head is not None and detector.dense_head is None
        given = config.has_proposals()
        path = f"data.{split}.proposals"
        if given and not needed:
            why = "has no roi_head" if detector.roi_head is None else "has a dense_head that proposes boxes itself"
            message = f"is set, but the detector {why}, so it would not be used; leave it out (null)"
            raise ConfigError.at(path, message, self.name)
        if needed and given is False:
            data = f" --data {self.data.root}" if self.data.root else ""
            message = (
                "is not set, but the detector has a roi_head and no dense_head that proposes boxes; make the file from "
                f"an RPN with `det-core proposals --checkpoint RPN_RUN{data} --split {split} -o {split}.safetensors` "
                f"and give it with `--set {path}=FILE`, or use a proposal head (dense_head: type: rpn)"
            )
            raise ConfigError.at(path, message, self.name)

    def with_data(self, root: str | Path) -> Recipe:
        """The recipe with the data in the folder `root`; COCO format replaces the bundled sample.

        If the recipe expects COCO format and the folder is in VOC format, or the reverse, the folder's format is used,
        with its usual splits and all classes in its annotations. A data set with explicit file names is not changed.
        """
        formats = _formats(root)
        train, val = (_with_format(getattr(self.data, split), split, formats) for split in ("train", "val"))
        return evolve(self, data=evolve(self.data, root=str(root), train=train, val=val))

    def to_yaml(self) -> str:
        return to_yaml(self.to_plain())


def dataset_at(root: str | Path, split: Split) -> DatasetConfig:
    """The configuration of a split of the data in the folder `root`, in the format that it is in, with all images."""
    return _with_format(CocoConfig(split=split), split, _formats(root))


def _formats(root: str | Path) -> frozenset[str]:
    """The data-set formats in a folder; empty if there is no such folder, which is an error once it is opened."""
    if not Path(root).expanduser().is_dir():
        return frozenset()
    from det_core.data.layout import formats_at

    return formats_at(root)


def _with_format(data: DatasetConfig, split: Split, formats: frozenset[str]) -> DatasetConfig:
    """The data set for a folder in one of these formats; see `with_data`."""
    if isinstance(data, SampleConfig):
        data = CocoConfig(split=split, proposals=data.proposals, max_proposals=data.max_proposals)
    if isinstance(data, CocoConfig) and formats == {"voc"} and not (data.annotations or data.images):
        return VocConfig(classes=None, **_folder_settings(data))
    if isinstance(data, VocConfig) and formats == {"coco"} and data.sets is None:
        return CocoConfig(**_folder_settings(data))
    return data


def _folder_settings(data: FolderSettings) -> dict[str, Any]:
    return {field.name: getattr(data, field.name) for field in fields_of(FolderSettings)}
