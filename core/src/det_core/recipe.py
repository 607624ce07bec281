"""The configuration of a whole run: detector, data, schedule and evaluation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from det_core.config.plain import unstructure
from det_core.config.yaml_text import to_yaml
from det_core.data.data_config import CocoConfig, SampleConfig, VocConfig
from det_core.data.dataset_settings import FolderSettings, RecordSettings
from det_core.data.files_config import JoinedConfig, LabelmeConfig, YoloConfig
from det_core.errors import ConfigError, Problem, nearest
from det_core.model.detector_config import DetectorConfig
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import SGDConfig
from det_core.settings import configclass, evolve, fields_of, setting
from det_core.slots import DatasetConfig, EvaluatorConfig, LearningRateConfig, OptimizerConfig, TransformConfig
from det_core.specs import RGB, OnBadSample, Split

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset

FORMATS: tuple[type[FolderSettings], ...] = (CocoConfig, YoloConfig, VocConfig, LabelmeConfig)  # the first wins
PER_RANK = "images per process and micro-batch; the total batch is this times processes times `accumulate`"


@configclass
class DataConfig:
    """The data to train and evaluate on, and how it is loaded."""

    train: DatasetConfig = setting("the data set to train on")
    val: DatasetConfig | None = setting("the data set to evaluate on; null: none, so training does not evaluate")
    val_fraction: float = setting(
        "share of the training images to evaluate on, and not to train on, if there are no validation data; the "
        "content of an image file decides, so that the choice is stable and equal images stay together",
        default=0.0,
        least=0,
        below=1,
    )
    root: str = setting("the folder that paths are relative to; --data sets it", default="")
    train_transforms: tuple[TransformConfig, ...] = setting("transforms of training images", default=())
    test_transforms: tuple[TransformConfig, ...] = setting("transforms of test images", default=())
    repeat: int = setting("passes over the data per epoch", default=1, least=1)
    repeat_threshold: float | None = setting(
        "class-balanced sampling: images with a class c that a share f(c) of the images below this threshold has are "
        "repeated sqrt(threshold / f(c)) times per pass (repeat factors of LVIS, which uses 0.001); null: off",
        default=None,
        above=0,
        most=1,
    )
    images_per_rank: int = setting(PER_RANK, default=2, least=1)
    workers: int = setting("loader processes per rank; 0: load in the main process", default=2, least=0)
    group_by_aspect: bool = setting("make batches of only wide or only tall images", default=True)
    on_bad_sample: OnBadSample = setting(
        "bad images and annotations: stop with an error, or skip, count and list them; repair: also clip boxes and "
        "masks to their images",
        default="error",
    )

    def __attrs_post_init__(self) -> None:
        for i, transform in enumerate(self.test_transforms):
            if transform.mixes():
                message = (
                    f"{transform.type!r} mixes an image with others of the data set, which only training gives; use it "
                    "in `train_transforms`"
                )
                raise ConfigError.at(f"test_transforms[{i}]", message)

    def has_validation(self) -> bool:
        """Whether there is a data set to evaluate on in training."""
        return self.val is not None or self.val_fraction > 0

    def dataset(self, split: Split) -> DatasetConfig:
        """The data set of a split; ConfigError if there is none."""
        if split == "test":
            return self._test()
        if self.val_fraction and self.val is not None:
            message = f"is {self.val_fraction:g}, but there are validation data; set it to 0, or `data.val` to null"
            raise ConfigError.at("data.val_fraction", message)
        if self.val_fraction:
            return self._part(0, self.val_fraction) if split == "val" else self._part(self.val_fraction, 1)
        if split == "train":
            return self.train
        if self.val is None:
            message = "is null: there are no validation data; name another split (train or test), or set it"
            raise ConfigError.at("data.val", message)
        return self.val

    def _part(self, low: float, high: float) -> DatasetConfig:
        part = self.train.with_part(low, high)
        if part is None:
            message = f"data of type {self.train.type!r} cannot be divided; set it to 0, and give `data.val`"
            raise ConfigError.at("data.val_fraction", message)
        return part

    def _test(self) -> DatasetConfig:
        base = self.train if self.val is None else self.val
        test = base.with_split("test")
        if test is None:
            what = "names its files" if isinstance(base, FolderSettings) else "has no splits by name"
            message = f"the data set ({base.type!r}) {what}, so the test split is not found by name; set its files"
            raise ConfigError.at(f"data.{'train' if self.val is None else 'val'}", message)
        return test


@configclass
class ScheduleConfig:
    """Length of training, learning-rate schedule and precision."""

    epochs: int = setting("passes over the data", default=12, least=1)
    learning_rate: LearningRateConfig = setting(
        "schedule of the learning rate, a factor on the optimiser's", default=StepRateConfig()
    )
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

    def __attrs_post_init__(self) -> None:
        if self.learning_rate.warms_up and self.warmup_steps:
            message = (
                f"found {self.warmup_steps}, but the learning rate {self.learning_rate.type!r} begins with a warm-up "
                "of its own; set it to 0"
            )
            raise ConfigError.at("warmup_steps", message)


@configclass
class EvaluationConfig:
    """Which metrics to compute, how often, and which one selects the best checkpoint."""

    evaluators: tuple[EvaluatorConfig, ...] = setting("metrics on the validation data")
    every_epochs: int = setting("epochs between evaluations", default=1, least=1)
    best: str = setting(
        "the metric that selects the best checkpoint; of one class as `box_ap/person`", default="box_ap"
    )
    losses: bool = setting(
        "also compute the training losses on the validation data (`val_loss/total`, ...), which then must have all "
        "annotations that training needs",
        default=False,
    )
    patience: int | None = setting("stop after this many evaluations without improvement", default=None, least=1)

    def __attrs_post_init__(self) -> None:
        names = [e.metric_names() for e in self.evaluators]
        known = [name for group in names if group is not None for name in group]
        measured = self.best.partition("/")[0]  # of one class: `box_ap/person`
        if names and None not in names and measured not in known:
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
    optimizer: OptimizerConfig = setting("optimiser and learning rate", default=SGDConfig())
    schedule: ScheduleConfig = setting("length and schedule of training", default=ScheduleConfig())
    evaluation: EvaluationConfig = setting("metrics")
    published: Published | None = setting("figures that others published for it", default=None)

    def __attrs_post_init__(self) -> None:
        pixels = self.detector.preprocess.pixels()
        if pixels == RGB:
            return
        for setting_name, transforms in (
            ("train_transforms", self.data.train_transforms),
            ("test_transforms", self.data.test_transforms),
        ):
            for i, transform in enumerate(transforms):
                problem = transform.refusal(pixels)
                if problem:
                    given = f"the detector takes {pixels} (`detector.preprocess`)"
                    message = f"{transform.type!r} {problem}; {given}, so change or remove the transform"
                    raise ConfigError.at(f"data.{setting_name}[{i}]", message, self.name)

    def to_plain(self) -> dict[str, Any]:
        """Plain data (for JSON or YAML) that `recipe_from_plain` turns into an equal recipe."""
        plain: dict[str, Any] = unstructure(self)
        return plain

    def trains_on_masks(self) -> bool:
        """Whether training requires instance masks: of the detector, or of a transform."""
        return self.detector.needs_masks() or any(t.needs_masks() for t in self.data.train_transforms)

    def open_train(self) -> DetectionDataset:
        """Open the training data, with the masks and semantic maps that training needs; DetError if invalid."""
        self._check_proposals("train", self.data.dataset("train"))
        data = self.open_split("train", masks=self.trains_on_masks(), semantic=self.detector.needs_semantic())
        self._check_semantic(data)
        return data

    def open_val(self, split: Split = "val") -> DetectionDataset:
        """Open the validation data, or another split to evaluate on, with what evaluators and validation losses need.

        Raises:
            DetError: if they are invalid, or there are none.
        """
        self._check_proposals(split, self.data.dataset(split))
        losses = self.evaluation.losses
        masks = any(e.needs_masks() for e in self.evaluation.evaluators) or (losses and self.detector.needs_masks())
        semantic = losses and self.detector.needs_semantic()
        return self.open_split(split, masks=masks, semantic=semantic)

    def open_split(
        self, split: Split, *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample | None = None
    ) -> DetectionDataset:
        """Open a split, with the pixels that the detector takes; DetError if it is invalid, or there is none.

        masks, semantic: as of `DatasetConfig.build`. on_bad_sample: None is the recipe's.
        """
        data = self.data.dataset(split).build(
            self.data.root, masks=masks, semantic=semantic, on_bad_sample=on_bad_sample or self.data.on_bad_sample
        )
        data.read_as(self.detector.preprocess.pixels())
        return data

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
        path = f"data.{'train' if split == 'train' else 'val'}.proposals"
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
        """The recipe with the data in the folder `root`; the folder's format replaces the bundled sample.

        If the recipe expects another format than the folder is in, the folder's format is used, with its usual splits
        and all its classes. A data set with explicit file names is not changed. The root becomes absolute.
        """
        folder = os.path.abspath(os.path.expanduser(root))
        train = _with_format(self.data.train, "train", folder)
        val = None if self.data.val is None else _with_format(self.data.val, "val", folder)
        return evolve(self, data=evolve(self.data, root=folder, train=train, val=val))

    def settled(self) -> Recipe:
        """The recipe with `data.val: null` if its folder has no validation split, and with an absolute root.

        Raises:
            ConfigError: if `data.val_fraction` is set and there are validation data.
        """
        data, root = self.data, self.data.root
        if root:
            root = os.path.abspath(os.path.expanduser(root))
        if data.val is not None and not data.val.is_there(root):
            data = evolve(data, val=None)
        data = evolve(data, root=root)
        data.dataset("train")
        return evolve(self, data=data)

    def to_yaml(self) -> str:
        return to_yaml(self.to_plain())


def dataset_at(root: str | Path, split: Split) -> DatasetConfig:
    """The configuration of a split of the data in the folder `root`, in the format that it is in, with all images."""
    return _with_format(CocoConfig(split=split), split, str(root))


def _with_format(data: DatasetConfig, split: Split, root: str) -> DatasetConfig:
    """The data set in the format of the folder `root`; see `Recipe.with_data`."""
    if isinstance(data, JoinedConfig):
        return evolve(data, sources=tuple(_with_format(source, split, root) for source in data.sources))
    if isinstance(data, SampleConfig):
        kept = {name: getattr(data, name) for name in ("proposals", "max_proposals", "classes")}
        data = CocoConfig(split=split, **kept)
    if not isinstance(data, FolderSettings) or data.names_files():
        return data
    formats = _formats(data.place(root))
    if not formats or data.type in formats:
        return data
    cls = next(cls for cls in FORMATS if cls.type in formats)
    settings = {field.name: getattr(data, field.name) for field in fields_of(FolderSettings)}
    if isinstance(data, RecordSettings) or cls is VocConfig:
        settings["classes"] = data.classes if isinstance(data, RecordSettings) else None
    return cls(**settings)


def _formats(root: str) -> frozenset[str]:
    """The data-set formats in a folder; empty if there is no such folder, which is an error once it is opened."""
    if not Path(root).expanduser().is_dir():
        return frozenset()
    from det_core.data.format_search import formats_at

    return formats_at(root)
