"""Import of other projects' weights into detectors and backbones, completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from det_core.conventions import differences, spoken
from det_core.errors import WeightsError, first_few
from det_core.offers import Names
from det_core.weights.detectron_names import is_unused_blob
from det_core.weights.initial_weights import not_pretrained
from det_core.weights.mmdet_generation import generation_of
from det_core.weights.older_names import current_names
from det_core.weights.read_files import is_finite
from det_core.weights.translate_names import Origin, backbone_names, backbone_parts, detector_names, locate

if TYPE_CHECKING:
    from torch import Tensor

    from det_core.model.detector import Detector
    from det_core.model.detector_config import DetectorConfig

COUNTERS = ("num_batches_tracked", "running_loss_count")  # of a training; they are not in every file
BENCHMARK_COPY = "roi_heads.mask.feature_extractor.head."  # of the last stage, which boxes and masks share
# Weights that a source's own detector never uses: HTC's first mask head has none before it.
UNUSED = {
    "mmdet1": ("roi_head.mask_head.0.conv_res.",),
    "detectron2": ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.", "anchor_generator."),
    "maskrcnn-benchmark": ("rpn.anchor_generator.", BENCHMARK_COPY),
}
WHERE = {
    "mmdet1": " (MODEL/mmdet1-...)",
    "torchvision": " (MODEL/torchvision-...)",
    "detectron2": " (MODEL/detectron2-...)",
    "detectron": " (MODEL/detectron-...)",
    "maskrcnn-benchmark": " (MODEL/maskrcnn-benchmark-...)",
}
CLASSIFIERS = ("fc.", "stem.fc.", "linear.")  # in ImageNet models; detectors do not use them


@frozen
class ImportReport:
    """The result of an import.

    filled: det's key to the source's key. ignored: source keys that were not used: counters of batch norm, mmcv's
    second copy of all weights (`ema_...`), and parts that the model does not have (a classifier, later stages).
    changed: det's key to the conversion of its value. derived: det's keys that were computed from others (statistics
    of a folded norm).
    """

    filled: Mapping[str, str]
    ignored: tuple[str, ...]
    changed: Mapping[str, str] = attrs.field(factory=dict)
    derived: tuple[str, ...] = ()


def import_weights(
    state_dict: Mapping[str, Any], *, source: str, detector: Detector, force: bool = False
) -> ImportReport:
    """Load another project's weights into a detector, completely or not at all.

    Args:
        state_dict: the source's names to tensors or numpy arrays.
        source: `mmdet` (2.x and 3.x; 0.x and 1.x where the names are theirs), `mmdet1` (0.x and 1.x), `torchvision`,
            `detectron2`, `detectron` (Caffe2) or `maskrcnn-benchmark`.
        detector: built from a configuration; its weights are replaced in place.
        force: load the weights also into a detector with the conventions of another project.

    Raises:
        WeightsError: lists all missing keys, unexpected keys and shapes that differ; or the settings of the detector
            that contradict the conventions of the source. The detector is then unchanged.
    """
    source = _generation(source, state_dict)
    filling = _Filling(source, state_dict, detector)
    if not force:
        check_conventions(source, filling.config)
    filling.fill(detector.state_dict(), detector_names(source, filling.config, filling.names))
    filling.check_copies()

    return filling.finish(f"the {source} weights do not fit this detector", _unneeded_by(source))


def unfit(state_dict: Mapping[str, Any], *, source: str, config: DetectorConfig, num_classes: int) -> list[str]:
    """Why the weights are not those of a detector: missing, unexpected and misshapen ones; empty if all fit."""
    import torch

    with torch.device("meta"):
        detector = config.build(num_classes=num_classes)
    filling = _Filling(source, state_dict, detector)
    filling.fill(detector.state_dict(), detector_names(source, filling.config, filling.names))
    return filling.all_problems(_unneeded_by(source))


def _unneeded_by(source: str) -> Callable[[str], bool]:
    """Whether a weight of this name may be left over in a detector's file."""

    def left_over(key: str) -> bool:
        unused = key.startswith(UNUSED.get(source, ())) or (source == "detectron" and is_unused_blob(key))
        return unused or key.endswith(COUNTERS)

    return left_over


def _generation(source: str, keys: Iterable[str]) -> str:
    """The source of these names: `mmdet1` also for `mmdet` if only versions before 2.0 had such names."""
    return "mmdet1" if source == "mmdet" and generation_of(keys) == "mmdet1" else source


def check_conventions(source: str, config: Any) -> None:
    """Raise WeightsError with the settings of a configuration that contradict the conventions of `source`."""
    found = differences(config, source)
    if found:
        raise WeightsError.listing(
            f"weights of {spoken(source)} do not mean the same under these settings; use a recipe with the "
            f"conventions of {source}{WHERE.get(source, '')}, or force the import",
            [str(difference) for difference in found],
        )


def import_backbone(
    state_dict: Mapping[str, Any], *, source: str, detector: Detector
) -> tuple[dict[str, Tensor], ImportReport]:
    """Another project's ImageNet weights with the names that `pretrained` expects.

    They are also loaded into the backbone of the detector, and into the trunk of its RoI head, if any.

    Returns:
        The values by their names in the ImageNet model (of backbone and trunk), and the report.

    Raises:
        WeightsError: as `import_weights`. Whole stages that the detector does not have are ignored and reported.
    """
    filling = _Filling(source, state_dict, detector)
    paths = [f"{path}." for path in backbone_parts(filling.config)]
    fresh = not_pretrained(detector)
    ours = {k: v for k, v in detector.state_dict().items() if k.startswith(tuple(paths)) and not k.startswith(fresh)}
    if source == "torchvision":  # parts have the names of its ImageNet models, which its detectors rename
        parts = Names(rules=tuple((re.escape(path), "") for path in paths))
    else:
        parts = backbone_names(filling.config)
    filling.fill(ours, parts)
    used = {name.partition(".")[0] for name in filling.used & filling.names.keys()}

    def unneeded(key: str) -> bool:
        return (
            key.endswith(COUNTERS)
            or key.startswith(CLASSIFIERS)
            or is_unused_blob(key)
            or key.partition(".")[0] not in used
        )

    report = filling.finish(f"the {source} weights do not fit this backbone", unneeded)
    return {k[len(path) :]: v for k, v in filling.values.items() for path in paths if k.startswith(path)}, report


class _Filling:
    """The state of an import: the values found, and the problems."""

    def __init__(self, source: str, state: Mapping[str, Any], detector: Detector) -> None:
        if detector.config is None:
            raise WeightsError("the detector was not built from a configuration, so its parts' weight maps are unknown")
        self.source, self.state, self.detector, self.config = source, state, detector, detector.config
        self.names = current_names(source, state)
        self.values: dict[str, Tensor] = {}
        self.filled: dict[str, str] = {}  # det's key to the file's
        self.changed: dict[str, str] = {}
        self.derived: list[str] = []
        self.problems: list[str] = []
        self.used: set[str] = set()

    def fill(self, ours: Mapping[str, Tensor], parts: Names) -> None:
        """Find the values of det's keys `ours`; `finish` raises the problems."""
        for key, expected in ours.items():
            origin = locate(self.source, parts, key)
            self.used.add(origin.name)
            if origin.name not in self.names:
                made = self._derive(key, origin.name, expected)
                if made is not None:
                    self.values[key] = made
                elif not key.endswith(COUNTERS):
                    self.problems.append(f"not in the source: {origin.name} (for {key})")
                continue
            theirs = self.names[origin.name]
            raw = self.state[theirs]
            value = _imported(raw, origin)
            if value.shape != expected.shape:
                self.problems.append(_mismatch(key, expected, theirs, raw, origin))
            elif not is_finite(value):
                self.problems.append(f"not finite (NaN or inf): {theirs} (for {key})")
            if origin.change:
                self.changed[key] = origin.change.note
            self.filled[key], self.values[key] = theirs, value

    def _derive(self, key: str, theirs: str, expected: Tensor) -> Tensor | None:
        """Statistics of a norm that is folded into its affine part: mean 0 and variance 1 - eps."""
        import torch

        module, _, kind = key.rpartition(".")
        if self.source not in ("detectron2", "detectron") or kind not in ("running_mean", "running_var"):
            return None
        if f"{theirs.rpartition('.')[0]}.weight" not in self.names:
            return None
        self.derived.append(key)
        if kind == "running_mean":
            return torch.zeros_like(expected)
        norm = self.detector.get_submodule(module)
        assert isinstance(norm, torch.nn.BatchNorm2d)  # no other norm has running statistics
        return torch.ones_like(expected) - norm.eps

    def check_copies(self) -> None:
        """maskrcnn-benchmark saves the last stage of a C4 model twice, under boxes and under masks."""
        import torch

        for name, key in self.names.items():
            if self.source == "maskrcnn-benchmark" and name.startswith(BENCHMARK_COPY):
                first = key.replace(".mask.", ".box.", 1)
                same = first in self.state and torch.equal(*(torch.as_tensor(self.state[of]) for of in (first, key)))
                if not same:
                    self.problems.append(f"not equal to {first}, though the model shares them: {key}")

    def finish(self, title: str, unneeded: Callable[[str], bool]) -> ImportReport:
        """Load the values and report; WeightsError if there are problems. unneeded: keys that may be left over."""
        found = self.all_problems(unneeded)
        if found:
            raise WeightsError.listing(title, found)
        self.detector.load_state_dict(self.values, strict=False)
        unused = tuple(self.names[name] for name in self.names if name not in self.used)
        return ImportReport(self.filled, unused, self.changed, tuple(self.derived))

    def all_problems(self, unneeded: Callable[[str], bool]) -> list[str]:
        """What is left over, though it may not be, and the problems found on the way."""
        averages = {f"ema_{key.replace('.', '_')}" for key in self.state}  # mmcv's copies of all weights
        left = [name for name in self.names if name not in self.used]
        ignored = {name for name in left if unneeded(name) or self.names[name] in averages}
        over = [f"left over in the source: {self.names[name]}" for name in left if name not in ignored]
        return [*over, *self.problems]


def _imported(raw: Any, origin: Origin) -> Tensor:
    """The value of a parameter, from its value in the source."""
    import torch

    value = torch.as_tensor(raw)
    return origin.change.apply(value) if origin.change and value.dim() else value


def _mismatch(key: str, expected: Tensor, theirs: str, raw: Any, origin: Origin) -> str:
    note = f" ({origin.change.note})" if origin.change else ""
    return f"shapes differ: {theirs} is {tuple(raw.shape)}{note}, {key} is {tuple(expected.shape)}"


def class_count(state_dict: Mapping[str, Any], *, source: str, config: DetectorConfig) -> int | None:
    """The number of foreground classes of a detector's weights; None if no layer depends on it.

    It is computed from the shapes of all class-dependent layers; WeightsError if they disagree or none is found.
    """
    import torch

    source = _generation(source, state_dict)
    names = current_names(source, state_dict)
    parts = detector_names(source, config, names)
    with torch.device("meta"):
        one, two = config.build(num_classes=1), config.build(num_classes=2)
    shapes = {k: v.shape for k, v in two.state_dict().items()}
    found: dict[int, str] = {}
    asked = []
    for key in one.class_dependent():
        origin = locate(source, parts, key)
        asked.append(origin.name)
        if origin.name in names:
            value = _imported(state_dict[names[origin.name]], origin)
            count = _solve(one.state_dict()[key].shape, shapes[key], value.shape)
            if count is not None:
                found.setdefault(count, names[origin.name])
    if len(found) > 1:
        said = ", ".join(f"{count} by {name}" for count, name in sorted(found.items()))
        raise WeightsError(
            f"the layers do not agree on the number of classes: {said}; the weights are not from a single model"
        )
    if asked and not found:
        raise WeightsError(
            f"the number of classes cannot be determined: none of {first_few(asked)} is present in a matching shape; "
            "check the recipe and the source"
        )
    return next(iter(found), None)


def _solve(one: Sequence[int], two: Sequence[int], found: Sequence[int]) -> int | None:
    """The class count with the shape `found`, given the shapes for 1 and 2 classes; None if there is none."""
    if len(found) != len(one):
        return None
    counts = set()
    for a, b, n in zip(one, two, found, strict=True):
        if a == b:
            if n != a:
                return None
        elif (n - a) % (b - a) or n < a:
            return None
        else:
            counts.add((n - a) // (b - a) + 1)
    return counts.pop() if len(counts) == 1 else None
